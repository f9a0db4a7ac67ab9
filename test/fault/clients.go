package fault

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"fallback/test/harness"
)

// leave sends requests whose clients do not stay: they leave within the headers, within the body, or before the answer,
// in order or with a reset. Those whose end was not sent must not be on the queue; the others may be.
func (r *rig) leave(ctx context.Context) {
	for ctx.Err() == nil {
		to := r.load.doors[0]
		conn, err := net.DialTimeout("tcp", to.addr, patience)
		if err != nil {
			r.ledger.undial()
			time.Sleep(refusedPause())
			continue
		}
		q := r.load.request(r.load.next.Add(1))
		r.ledger.sending(q.id, q.sum())
		head, all := q.head(nil, to), q.append(nil, to)
		chosen := rand.New(rand.NewPCG(^r.load.seed, q.id))
		switch cut := chosen.IntN(3); {
		case cut == 0:
			all = all[:len(head)/2]
		case cut == 1 && len(q.body) > 0:
			all = all[:len(head)+len(q.body)/2]
		}
		_, _ = conn.Write(all)
		time.Sleep(time.Duration(chosen.IntN(20)) * time.Millisecond)
		if chosen.IntN(2) == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
		r.left.Add(1)
	}
}

// dribble sends bodies slowly: every other one is complete within half of the deadline, the rest never is.
func (r *rig) dribble(ctx context.Context) {
	var clients sync.WaitGroup
	defer clients.Wait()
	for i := 0; ctx.Err() == nil; i++ {
		pause := r.timeout / 2 / slowBytes
		if i%2 == 0 {
			pause *= 4
		}
		clients.Go(func() { r.dribbleOne(pause) })
		time.Sleep(20 * time.Millisecond)
	}
}

// slowBytes is the length of a body that comes slowly.
const slowBytes = 10

func (r *rig) dribbleOne(pause time.Duration) {
	to := r.load.doors[0]
	conn, err := net.DialTimeout("tcp", to.addr, patience)
	if err != nil {
		r.ledger.undial()
		return
	}
	var writer sync.WaitGroup
	defer writer.Wait()
	defer conn.Close()
	q := r.load.request(r.load.next.Add(1))
	q.body = pool[q.id%1000:][:slowBytes]
	r.ledger.sending(q.id, q.sum())
	w := harness.StartWatch()
	_ = conn.SetDeadline(time.Now().Add(r.timeout + patience))
	writer.Go(func() {
		_, err := conn.Write(q.head(nil, to))
		for i := 0; i < len(q.body) && err == nil; i++ {
			time.Sleep(pause)
			_, err = conn.Write(q.body[i : i+1]) // ends when the connection is closed
		}
	})
	status, _, body, err := readAnswer(bufio.NewReader(conn))
	took := w.Elapsed()
	switch message := messageID(body); {
	case err != nil:
		r.ledger.broken(q.id, err, took)
	case status == http.StatusAccepted && message != "":
		r.ledger.record(q.id, message, took)
	default:
		r.ledger.refused(problemOf(status, body), took)
	}
}
