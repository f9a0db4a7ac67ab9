package fault

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestRequestsFollowFromTheSeed holds that a request can be made again from the seed and its id, and that what is sent
// is what the checksum is of.
func TestRequestsFollowFromTheSeed(t *testing.T) {
	t.Parallel()
	const seed = 42
	one, same, other := newLoad(nil, seed, 0), newLoad(nil, seed, 0), newLoad(nil, seed+1, 0)
	keyed := newLoad(nil, seed, 0)
	keyed.keys = 4
	empty, large := 0, 0
	for id := range uint64(1000) {
		q := one.request(id)
		if q.sum() != same.request(id).sum() {
			t.Fatalf("request %d is another with the same seed", id)
		}
		if q.sum() == other.request(id).sum() {
			t.Fatalf("request %d is the same with another seed", id)
		}
		if id%2 == 1 {
			if q = keyed.request(id); q.key != senderKey(id%4) {
				t.Fatalf("request %d is from %q", id, q.key)
			}
		}
		read, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(q.append(nil,
			door{"localhost", "/fallback"})))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(read.Body)
		if err != nil {
			t.Fatal(err)
		}
		target, _ := strings.CutPrefix(read.RequestURI, "/fallback")
		if checksum(read.Method, target, read.Header, body) != q.sum() {
			t.Fatalf("request %d: got %s %s and %d bytes", id, read.Method, read.RequestURI, len(body))
		}
		if len(q.body) == 0 {
			empty++
		}
		if len(q.body) == 64<<10 {
			large++
		}
	}
	if empty == 0 || large == 0 {
		t.Errorf("%d empty and %d large bodies among 1000", empty, large)
	}
}

// TestBudget holds that no number of senders puts more onto a round's queue than its broker is made for.
func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const senders, round = 500, 10 * time.Second
		l, begin := newLoad(nil, 1, 0), time.Now()
		l.refill()
		var accepted atomic.Int64
		var work sync.WaitGroup
		for range senders {
			work.Go(func() {
				for time.Since(begin) < round {
					accepted.Add(1)
					time.Sleep(max(10*time.Millisecond, l.overBudget())) // 50,000 a second
				}
			})
		}
		work.Wait()
		want := int64(budgetBurst + budgetRate*round.Seconds())
		if got := accepted.Load(); got < want-senders || got > want+senders {
			t.Errorf("%d 202s in %s, want %d", got, round, want)
		}
	})
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	const accepted = `{"id":"x","queue":"q","received_at":"t"}` + "\n"
	for _, row := range []struct {
		name, raw  string
		status     int
		closing    bool
		id, answer string
	}{
		{"202", "HTTP/1.1 202 Accepted\r\nContent-Length: 41\r\n\r\n" + accepted, 202, false, "x", ""},
		{"202 and the end", "HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 41\r\n\r\n" + accepted, 202,
			true, "x", ""},
		{"cut off", "HTTP/1.1 202 Accepted\r\nContent-Length: 41\r\n\r\n" + accepted[:20], 0, false, "", ""},
		{"cut off in the headers", "HTTP/1.1 202 Accepted\r\nContent-", 0, false, "", ""},
		{"of unknown length", "HTTP/1.1 202 Accepted\r\n\r\n" + accepted, 0, false, "", ""},
		{"problem", "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 42\r\n\r\n" +
			`{"type":"urn:fallback:problem:queue-full"}`, 503, false, "", "503 queue-full"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			status, closing, body, err := readAnswer(bufio.NewReader(strings.NewReader(row.raw)))
			if (err != nil) != (row.status == 0) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if status != row.status || closing != row.closing || messageID(body) != row.id {
				t.Errorf("got %d %t %q", status, closing, body)
			}
			if got := problemOf(status, body); row.answer != "" && got != row.answer {
				t.Errorf("got %q, want %q", got, row.answer)
			}
		})
	}
}
