package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// judge is a scripted broker that remembers which messages it has acked and returned: a message is stored when one of
// its sendings was acked, and not returned before. Its script is a byte for each thing that the client does.
type judge struct {
	mu       sync.Mutex // guards the rest
	script   []byte
	sent     []sent
	returned map[string]bool // sendings
	stored   map[string]bool // ids
}

// sent is one sending of a message.
type sent struct {
	visit   int
	message published
}

func sending(v *visit, m published) string { return fmt.Sprint(v.number, " ", m.channel, " ", m.tag) }

// next is what the script says, and a pause before it.
func (j *judge) next() (do byte, pause time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.script) == 0 {
		return 0, 0
	}
	b := j.script[0]
	j.script = j.script[1:]
	return b & 15, time.Duration(b>>4) * 150 * time.Millisecond
}

// What follows is remembered and sent in one go: what two do at once is then heard in the order in which it is
// remembered.

// acks needs the mutex held, as returns does.
func (j *judge) acks(v *visit, m published) {
	j.stores(v, m)
	v.ack(m)
}

func (j *judge) stores(v *visit, m published) {
	if !j.returned[sending(v, m)] {
		j.stored[m.id] = true
	}
}

func (j *judge) returns(v *visit, m published) {
	j.returned[sending(v, m)] = true
	v.returns(m)
}

// publish does what the script says with a message.
func (j *judge) publish(v *visit, m published) {
	do, pause := j.next()
	j.mu.Lock()
	j.sent = append(j.sent, sent{v.number, m})
	j.mu.Unlock()
	time.AfterFunc(pause, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		switch do {
		case 0, 1:
			j.acks(v, m)
		case 2:
			v.nack(m)
		case 3:
			j.returns(v, m)
			j.acks(v, m)
		case 4:
			j.returns(v, m)
		case 5:
		case 6: // and all before it
			for _, one := range j.sent {
				if w := one.message; one.visit == v.number && w.channel == m.channel && w.tag <= m.tag {
					j.stores(v, w)
				}
			}
			v.ackAll(m)
		default:
			j.anything(v, do, m.channel)
		}
	})
}

// anything is what a broker may do at any time.
func (j *judge) anything(v *visit, do byte, channel uint16) {
	switch do {
	case 7:
		v.hangUp()
	case 8:
		v.closeChannel(channel, amqp.NotFound)
	case 9:
		v.closeChannel(channel, amqp.AccessRefused)
	case 10:
		v.closes(amqp.InternalError)
	case 11:
		v.block("memory")
	case 12:
		v.unblock()
	case 13:
		v.send([]byte("\x01\x00\x01\x00\x00\x00\x04nonsense"))
	case 14:
		v.send(ackFrame(channel, 1000, false))
	}
}

// method may keep an answer back, or do something else instead.
func (j *judge) method(v *visit, r request) bool {
	if !r.is(50, 10) && !r.is(20, 10) {
		return false
	}
	do, _ := j.next()
	if do < 7 {
		return false
	}
	go j.anything(v, do, r.channel)
	return do != 12
}

// FuzzPublish holds, whatever a broker does and in whatever order: Publish ends with its context, and says that a
// message is stored only when the broker has acked it and has not returned it.
func FuzzPublish(f *testing.F) {
	f.Add([]byte{0}, uint8(1))
	f.Add([]byte{2, 3, 0, 0, 5, 6}, uint8(3))
	f.Add([]byte{0, 7, 0, 0}, uint8(2))
	f.Add([]byte{0, 11, 12, 0, 0}, uint8(4))
	f.Add([]byte{0, 3, 10, 0, 9, 0, 0xF5, 8}, uint8(2))
	f.Add([]byte{0, 13, 0, 14, 4, 0x74}, uint8(1))
	f.Fuzz(func(t *testing.T, script []byte, concurrent uint8) {
		if len(script) > 64 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			j := &judge{script: script, returned: map[string]bool{}, stored: map[string]bool{}}
			p := &peer{onPublish: j.publish, onMethod: j.method}
			publisher := publisherOn(t, p)
			const deadline = 2 * time.Second
			var work sync.WaitGroup
			for worker := range int(concurrent%4) + 1 {
				work.Go(func() {
					for i := range 4 {
						r := seal(captured())
						r.ID = fmt.Sprint("id ", worker, " ", i)
						ctx, cancel := context.WithTimeout(t.Context(), deadline)
						begin := time.Now()
						err := publisher.Publish(ctx, r)
						cancel()
						if took := time.Since(begin); took > deadline {
							t.Errorf("%s: it took %s", r.ID, took)
						}
						j.mu.Lock()
						if err == nil && !j.stored[r.ID] {
							t.Errorf("%s: it is stored, they say", r.ID)
						}
						j.mu.Unlock()
						if failure := new(Failure); err != nil && !errors.As(err, &failure) {
							t.Errorf("%s: an error of no kind: %v", r.ID, err)
						}
					}
				})
			}
			work.Wait()
		})
	})
}
