package rabbit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// peer is as much of a broker as a test needs, on pipes. It greets, opens channels and answers questions by itself;
// what becomes of a message is for the test's script. Fields that are functions may be nil, and are set before the
// first connection.
type peer struct {
	onPublish func(*visit, published)    // what becomes of a message; acked, if it is nil
	onConsume func(*visit, uint16)       // a consumer is there, on this channel
	onMethod  func(*visit, request) bool // is asked first; true says that it has answered, or means not to
	greets    func(*visit) bool          // false says that it does not

	mu     sync.Mutex // guards the rest
	visits []*visit
	ready  map[string]int // messages on the queues that there are, besides "q"
	sent   []published
	acked  []uint64 // delivery tags that were acked, and those that were requeued
	nacked []uint64
}

// published is a message of the client.
type published struct {
	channel   uint16
	tag       uint64 // by which it is confirmed
	queue, id string
	mandatory bool
	header    []byte // the content header's payload
	body      []byte
}

// request is a method of the client.
type request struct {
	channel, class, method uint16
	arguments              []byte
}

func (r request) is(class, method uint16) bool { return r.class == class && r.method == method }

// visit is one connection of the client. It reads whatever it still has to write: else, two that write to each other
// would wait, and a mutex of the client library meanwhile, which virtual time does not count as waiting.
type visit struct {
	*peer
	number int // from 1
	conn   net.Conn
	piece  int               // bytes that are written at a time; 0 is all
	tags   map[uint16]uint64 // of the last message of each channel; the reader's
	out    chan outgoing     // is written in this order
	left   chan struct{}     // closed when the reader has ended
	silent chan struct{}     // closed when nothing more is written
}

// outgoing are bytes to write, with a wait before each; without any, the line is cut.
type outgoing struct {
	bytes []byte
	wait  time.Duration
}

// socket is for the options of what is tested.
func (p *peer) socket(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	v := &visit{peer: p, conn: far, tags: map[uint16]uint64{}, out: make(chan outgoing, 1<<12),
		left: make(chan struct{}), silent: make(chan struct{})}
	p.mu.Lock()
	p.visits = append(p.visits, v)
	v.number = len(p.visits)
	p.mu.Unlock()
	go v.serve()
	go v.write()
	return near, nil
}

// first is the first connection.
func (p *peer) first() *visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.visits[0]
}

// dials is how many connections there were.
func (p *peer) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.visits)
}

// published is what has come, without the questions of who asks whether it may publish.
func (p *peer) published() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

func (p *peer) settled() (acked, nacked []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.acked), slices.Clone(p.nacked)
}

// fill says how many messages are ready on a queue; less than none, and there is no such queue.
func (p *peer) fill(queue string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready == nil {
		p.ready = map[string]int{}
	}
	p.ready[queue] = n
}

func (v *visit) serve() {
	defer v.hangUp()
	defer close(v.left)
	in := bufio.NewReader(v.conn)
	if _, err := io.ReadFull(in, make([]byte, 8)); err != nil { // AMQP and the version
		return
	}
	if v.greets != nil && !v.greets(v) {
		_, _ = io.Copy(io.Discard, in)
		return
	}
	v.send(startFrame())
	coming := map[uint16]*published{} // by channel: their frames come mixed
	for {
		kind, channel, payload, err := readFrame(in)
		if err != nil {
			return
		}
		m := coming[channel]
		switch kind {
		case 1:
			r := request{channel, binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4:]}
			if r.is(60, 40) {
				coming[channel] = v.publishing(r)
			} else if v.onMethod == nil || !v.onMethod(v, r) {
				v.answer(r)
			}
		case 2:
			m.header, m.id = payload, messageID(payload)
			if binary.BigEndian.Uint64(payload[4:]) == 0 {
				v.came(*m)
			}
		case 3:
			m.body = append(m.body, payload...)
			if len(m.body) == int(binary.BigEndian.Uint64(m.header[4:])) {
				v.came(*m)
			}
		}
	}
}

func readFrame(in io.Reader) (kind byte, channel uint16, payload []byte, err error) {
	var head [headSize]byte
	if _, err = io.ReadFull(in, head[:]); err != nil {
		return 0, 0, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[3:])+1)
	if _, err = io.ReadFull(in, payload); err != nil {
		return 0, 0, nil, err
	}
	return head[0], binary.BigEndian.Uint16(head[1:]), payload[:len(payload)-1], nil
}

// messageID is that of a content header.
func messageID(payload []byte) string {
	rest := payload[fixedSize:]
	for flag := uint16(1 << 15); flag > 1<<7; flag >>= 1 {
		if flagsOf(payload)&flag == 0 {
			continue
		}
		size := 1
		switch flag {
		case hasHeaders:
			size = 4 + int(binary.BigEndian.Uint32(rest))
		case 1 << 12, 1 << 11:
		default:
			size = 1 + int(rest[0])
		}
		rest = rest[size:]
	}
	if flagsOf(payload)&(1<<7) == 0 {
		return ""
	}
	return string(rest[1 : 1+rest[0]])
}

func (v *visit) publishing(r request) *published {
	v.tags[r.channel]++
	exchange := r.arguments[2:]
	key := exchange[1+exchange[0]:]
	return &published{channel: r.channel, tag: v.tags[r.channel], queue: string(key[1 : 1+key[0]]),
		mandatory: key[1+key[0]]&1 != 0}
}

func (v *visit) came(m published) {
	if !m.mandatory { // the question whether the user may publish
		v.ack(m)
		return
	}
	v.mu.Lock()
	v.sent = append(v.sent, m)
	v.mu.Unlock()
	if v.onPublish == nil {
		v.ack(m)
		return
	}
	v.onPublish(v, m)
}

// answer is what a broker says to a method.
func (v *visit) answer(r request) {
	switch {
	case r.is(10, 11): // start-ok
		v.send(tuneFrame(frameSize))
	case r.is(10, 40): // open
		v.send(openOKFrame())
	case r.is(10, 50): // close
		v.send(method(0, 10, 51))
		v.hangUp()
	case r.is(10, 51): // close-ok
		v.hangUp()
	case r.is(20, 10): // channel: open
		v.send(method(r.channel, 20, 11, long(nil)))
	case r.is(20, 40): // channel: close
		v.send(method(r.channel, 20, 41))
	case r.is(85, 10): // confirm: select
		v.send(method(r.channel, 85, 11))
	case r.is(60, 10): // qos
		v.send(method(r.channel, 60, 11))
	case r.is(60, 20): // consume: a short, the queue, the consumer
		queue := r.arguments[2:]
		tag := queue[1+queue[0]:]
		v.send(method(r.channel, 60, 21, tag[:1+tag[0]]))
		if v.onConsume != nil {
			v.onConsume(v, r.channel)
		}
	case r.is(60, 30): // cancel
		v.send(method(r.channel, 60, 31, r.arguments[:1+r.arguments[0]]))
	case r.is(50, 10): // declare: a short, the queue, whether it only asks
		v.declare(r)
	case r.is(60, 80):
		v.note(&v.acked, r)
	case r.is(60, 120):
		v.note(&v.nacked, r)
	}
}

func (v *visit) note(tags *[]uint64, r request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*tags = append(*tags, binary.BigEndian.Uint64(r.arguments))
}

func (v *visit) declare(r request) {
	name := r.arguments[2:]
	passive := name[1+name[0]]&1 != 0
	v.mu.Lock()
	ready := v.ready[string(name[1:1+name[0]])]
	v.mu.Unlock()
	switch {
	case ready >= 0:
		v.send(method(r.channel, 50, 11, name[:1+name[0]], u32(uint32(ready)), u32(0)))
	case passive:
		v.closeChannel(r.channel, amqp.NotFound)
	default:
		v.closeChannel(r.channel, amqp.AccessRefused)
	}
}

// write writes what is to go out, until the line is cut.
func (v *visit) write() {
	defer close(v.silent)
	defer v.conn.Close()
	for o := range v.out {
		piece := v.piece
		switch {
		case o.bytes == nil:
			return
		case o.wait > 0:
			piece = 1
		case piece == 0:
			piece = len(o.bytes)
		}
		for part := range slices.Chunk(o.bytes, piece) {
			v.sleep(o.wait)
			if _, err := v.conn.Write(part); err != nil {
				return
			}
		}
	}
}

// sleep ends with the client.
func (v *visit) sleep(d time.Duration) {
	if d == 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-v.left:
	}
}

func (v *visit) put(o outgoing) {
	select {
	case v.out <- o:
	case <-v.silent:
	}
}

func (v *visit) send(frames ...[]byte) { v.put(outgoing{bytes: bytes.Join(frames, nil)}) }
func (v *visit) hangUp()               { v.put(outgoing{}) }

// trickle sends bytes one at a time, with a wait before each.
func (v *visit) trickle(wait time.Duration, frames ...[]byte) {
	v.put(outgoing{bytes.Join(frames, nil), wait})
}

// keepsBusy sends something each second, for as long as d or the connection lasts.
func (v *visit) keepsBusy(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); v.sleep(time.Second) {
		select {
		case <-v.left:
			return
		default:
			v.send(heartbeatFrame())
		}
	}
}

// What may become of a message.

func (v *visit) ack(m published)     { v.send(ackFrame(m.channel, m.tag, false)) }
func (v *visit) ackAll(m published)  { v.send(ackFrame(m.channel, m.tag, true)) } // and all before it
func (v *visit) nack(m published)    { v.send(method(m.channel, 60, 120, u64(m.tag), []byte{0})) }
func (v *visit) returns(m published) { v.send(returnFrames(m)...) }
func (v *visit) block(reason string) { v.send(method(0, 10, 60, short(reason))) }
func (v *visit) unblock()            { v.send(method(0, 10, 61)) }
func (v *visit) closes(code uint16)  { v.send(closeFrame(code, "scripted")) }
func (v *visit) cancels(channel uint16) {
	v.send(method(channel, 60, 30, short("fallback-1"), []byte{1}))
}
func (v *visit) closeChannel(channel uint16, code uint16) {
	v.send(method(channel, 20, 40, u16(code), short("scripted"), u16(0), u16(0)))
}

func ackFrame(channel uint16, tag uint64, multiple bool) []byte {
	bits := byte(0)
	if multiple {
		bits = 1
	}
	return method(channel, 60, 80, u64(tag), []byte{bits})
}

func returnFrames(m published) [][]byte {
	frames := [][]byte{method(m.channel, 60, 50, u16(312), short("NO_ROUTE"), short(""), short(m.queue)),
		frame(2, m.channel, m.header)}
	if len(m.body) > 0 {
		frames = append(frames, frame(3, m.channel, m.body))
	}
	return frames
}

// deliver sends a message to the first consumer, with any bytes for a header table.
func (v *visit) deliver(channel uint16, tag uint64, table, body []byte) {
	v.send(deliverFrames(channel, 1, tag, table, body, frameSize-aroundPayload)...)
}

// deliverFrames are those of a message for the channel's consumer of that number, with piece bytes of its body in each.
func deliverFrames(channel uint16, consumer int, tag uint64, table, body []byte, piece int) [][]byte {
	frames := [][]byte{method(channel, 60, 60, short(fmt.Sprint("fallback-", consumer)), u64(tag), []byte{0}, short(""),
		short("q")), frame(2, channel, properties(table, len(body)))}
	for part := range slices.Chunk(body, piece) {
		frames = append(frames, frame(3, channel, part))
	}
	return frames
}

// publisherOn is one on the peer, and confirmerOn and sourceOn likewise; all end with the test.
func publisherOn(t *testing.T, p *peer) *Publisher {
	publisher := NewPublisher(Options{URL: "amqp://u:p@peer/", Queue: "q", socket: p.socket})
	t.Cleanup(publisher.Close)
	return publisher
}

func confirmerOn(t *testing.T, p *peer) *confirmer {
	c := newConfirmer(confirmerOptions{url: "amqp://u:p@peer/", socket: p.socket})
	t.Cleanup(c.close)
	return c
}

func sourceOn(t *testing.T, p *peer) *Source {
	s := NewSource(SourceOptions{URL: "amqp://u:p@peer/", Queue: "q", socket: p.socket})
	t.Cleanup(s.Close)
	return s
}

// name is an error as a test's row has it: its Failure's code.
func name(err error) string {
	var failure *Failure
	switch {
	case err == nil:
		return "stored"
	case errors.As(err, &failure):
		return failure.Code()
	default:
		return err.Error()
	}
}
