package rabbit

import (
	"context"
	"log/slog"
	"sync"
)

// states logs what changes, and keeps quiet while it stays the same: a broker that is away for an hour is two lines.
type states struct {
	log *slog.Logger

	mu   sync.Mutex // guards last
	last map[string]string
}

// change logs the message when topic is not in this state already. The state "" is the good one: as a topic's first, it
// is no news. Any other first state is logged.
func (s *states) change(topic, state string, level slog.Level, message string, args ...any) {
	s.mu.Lock()
	last, known := s.last[topic]
	if s.last == nil {
		s.last = map[string]string{}
	}
	s.last[topic] = state
	s.mu.Unlock()
	if last == state && (known || state == "") {
		return
	}
	s.log.Log(context.Background(), level, message, args...)
}

// is says whether the topic is in this state.
func (s *states) is(topic, state string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[topic] == state
}

// forget makes the topic's next state its first: what was known of an old connection is not known of the new one.
func (s *states) forget(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, topic)
}
