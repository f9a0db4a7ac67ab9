package harness

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Distance is a TCP proxy that puts a broker far away: each byte arrives half a round trip after it was sent, and a
// connection costs one before its first byte, as TCP's handshake would. It counts the round trips that its client waits
// for.
type Distance struct {
	// Addr is where it listens.
	Addr string

	listener  net.Listener
	roundTrip time.Duration
	trips     atomic.Int64
	answers   sync.RWMutex // locked while the broker's answers are held
}

// Far starts one before target; Close ends it.
func Far(target string, roundTrip time.Duration) (*Distance, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &Distance{Addr: ln.Addr().String(), listener: ln, roundTrip: roundTrip}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go d.join(client, target)
		}
	}()
	return d, nil
}

// Close takes no more connections; those that there are go when either side does.
func (d *Distance) Close() { d.listener.Close() }

// Hold keeps what the broker says from the client, until Release.
func (d *Distance) Hold() { d.answers.Lock() }

// Release ends a Hold.
func (d *Distance) Release() { d.answers.Unlock() }

// RoundTrips is how often so far the client has sent something after it had got something, and each connection once for
// its handshake: so many round trips were waited for, however many bytes were in each.
func (d *Distance) RoundTrips() int64 { return d.trips.Load() }

func (d *Distance) join(client net.Conn, target string) {
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	d.trips.Add(1)
	time.Sleep(d.roundTrip)
	answered := &atomic.Bool{} // the server had the last word
	answered.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		d.carry(server, client, func() {
			if answered.Swap(false) {
				d.trips.Add(1)
			}
		})
	})
	wg.Go(func() {
		d.carry(client, server, func() {
			d.answers.RLock()
			defer d.answers.RUnlock()
			answered.Store(true)
		})
	})
	wg.Wait()
}

// carry brings what comes from one side to the other after half a round trip, in order.
func (d *Distance) carry(to, from net.Conn, seen func()) {
	type chunk struct {
		due   time.Time
		bytes []byte
	}
	chunks := make(chan chunk, 1024)
	go func() {
		defer close(chunks)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				seen()
				chunks <- chunk{time.Now().Add(d.roundTrip / 2), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if _, err := to.Write(c.bytes); err != nil {
			break
		}
	}
	to.Close()
	for range chunks { // from is closed by the other direction
	}
}
