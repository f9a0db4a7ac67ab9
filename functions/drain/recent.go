package drain

import (
	"slices"
	"sync"
)

// mostRecent bounds a recent.
const mostRecent = 256

// recent is a map that forgets the oldest key beyond the last few hundred: what another worker has settled is never deleted
// here. Its methods may be called at the same time.
type recent[V any] struct {
	mu     sync.Mutex
	values map[string]V
	keys   []string // the oldest first
}

func (m *recent[V]) get(key string) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.values[key]
	return v, ok
}

func (m *recent[V]) set(key string, v V) {
	m.delete(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.keys) == mostRecent {
		delete(m.values, m.keys[0])
		m.keys = slices.Delete(m.keys, 0, 1)
	}
	if m.values == nil {
		m.values = map[string]V{}
	}
	m.values[key] = v
	m.keys = append(m.keys, key)
}

func (m *recent[V]) delete(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[key]; !ok {
		return
	}
	delete(m.values, key)
	m.keys = slices.DeleteFunc(m.keys, func(k string) bool { return k == key })
}
