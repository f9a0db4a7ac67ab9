package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

const mebibyte = 1 << 20

// TestStalledBodies holds that bodies which are announced and do not come keep no room from those that do: what is
// claimed is not counted, and one that trickles is given up when its room is needed.
func TestStalledBodies(t *testing.T) {
	t.Parallel()
	plausible := "Webhook-Id: msg_1\r\nWebhook-Signature: v1,MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\r\n"
	for _, row := range []struct {
		name, keys, stalled string
		connections         int
		bytesInHand         int64
		givenUp             bool // they have to be
	}{
		{"chunked", "", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 4, 4 * mebibyte, false},
		{"of a stated length", "", "Content-Length: 1048576\r\n\r\nx", 64, 64 * mebibyte, false},
		{"so many that they fill the room", "", "Content-Length: 1048576\r\n\r\nx", 128, 2 * mebibyte, true},
		{"so many chunked ones that they fill the room", "", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 128,
			2 * mebibyte, true},
		{"so many of which nothing has come", "", "Content-Length: 1048576\r\n\r\n", 128, 2 * mebibyte, true},
		{"of strangers that may be signed", "one", plausible + "Content-Length: 1048576\r\n\r\nx", 80, 2 * mebibyte,
			false},
		{"of strangers that may be signed, and nothing has come", "one", plausible + "Content-Length: 1048576\r\n\r\n",
			80, 2 * mebibyte, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				o.Limits.Body, o.BytesInHand = mebibyte, row.bytesInHand
				if row.keys != "" {
					o.Tokens, o.WebhookSecrets = []string{row.keys}, []string{"whsec_b3Vycw=="}
				}
				ln := listen(t, NewServer(door(t, o, store{})))
				stalled := make([]net.Conn, row.connections)
				for i := range stalled {
					stalled[i] = ln.dial()
					defer stalled[i].Close()
					_, _ = fmt.Fprintf(stalled[i], "POST /fallback HTTP/1.1\r\nHost: h\r\nWebhook-Timestamp: %d\r\n%s",
						time.Now().Unix(), row.stalled)
				}
				time.Sleep(trickleAfter)
				begin := time.Now()
				client := ln.dial()
				defer client.Close()
				go func() {
					_, _ = fmt.Fprintf(client,
						"POST /fallback HTTP/1.1\r\nHost: h\r\nFallback-Authorization: Bearer "+
							"one\r\nContent-Length: %d\r\n\r\n%s", mebibyte, strings.Repeat("y", mebibyte))
				}()
				if response, body := answer(t, bufio.NewReader(client)); response.StatusCode != http.StatusAccepted {
					t.Errorf("got %s %s, want 202", response.Status, body)
				}
				if took := time.Since(begin); took > roomPatience {
					t.Errorf("the answer took %s", took)
				}
				if row.givenUp {
					response, body := answer(t, bufio.NewReader(stalled[0]))
					if response.StatusCode != http.StatusServiceUnavailable || time.Since(begin) > roomPatience {
						t.Errorf("a stalled one got %s %s after %s", response.Status, body, time.Since(begin))
					}
				}
			})
		})
	}
}

// TestFastBodiesStay holds that a body which comes at a pace is not given up for another.
func TestFastBodiesStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Limits.Body, o.BytesInHand = 64<<10, 96<<10
		ln := listen(t, NewServer(door(t, o, store{})))
		fast := ln.dial()
		defer fast.Close()
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(fast, "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n")
			for range 32 { // 20 KiB a second
				time.Sleep(100 * time.Millisecond)
				_, err = fast.Write(make([]byte, 2<<10))
			}
			sent <- err
		}()
		time.Sleep(3 * time.Second)
		client := ln.dial()
		defer client.Close()
		go func() {
			_, _ = io.WriteString(client, "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n"+strings.Repeat("y", 65536))
		}()
		if response, body := answer(t, bufio.NewReader(client)); response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("without room: got %s %s, want 503", response.Status, body)
		}
		if response, body := answer(t, bufio.NewReader(fast)); response.StatusCode != http.StatusAccepted {
			t.Errorf("the one that comes at a pace: got %s %s, want 202", response.Status, body)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// TestBodySteps holds what a body takes of the room while it comes: no more than four times of what has come and a
// first step, and never more than its limit.
func TestBodySteps(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		length, limit int64
		chunked       bool
	}{
		{1, mebibyte, false}, {firstStep, mebibyte, false}, {firstStep + 1, mebibyte, false},
		{3*firstStep - 1, mebibyte, false},
		{mebibyte - 1, mebibyte, false}, {mebibyte, mebibyte, false}, {16 * mebibyte, 16 * mebibyte, false},
		{716800, 716800, false},
		{1, mebibyte, true}, {mebibyte, mebibyte, true}, {mebibyte - 1, mebibyte, true}, {100_001, 100_001, true},
		{5, 5, true},
	} {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			t.Parallel()
			room := newRoom(row.limit, nil)
			content := bytes.Repeat([]byte("0123456789abcdef!"), int(row.length)/17+1)[:row.length]
			var came int64
			peak := int64(0)
			source := bytes.NewReader(content)
			r := request("POST", "/fallback", "")
			r.ContentLength = row.length
			if row.chunked {
				r.ContentLength = -1
			}
			r.Body = io.NopCloser(readFunc(func(p []byte) (int, error) {
				used := room.used.Load()
				peak = max(peak, used)
				if most := 4*came + firstStep; used > most {
					t.Fatalf("%d of %d bytes have come, and %d are taken, want at most %d", came, row.length, used,
						most)
				}
				n, err := source.Read(p[:min(len(p), 1000)])
				came += int64(n)
				return n, err
			}))
			b := newIntake(httptest.NewRecorder(), room, time.Now())
			got, err := b.read(r, row.limit)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("got %d bytes and %v, want %d", len(got), err, row.length)
			}
			if int64(cap(got)) != room.used.Load() {
				t.Errorf("it takes %d, and %d are counted", cap(got), room.used.Load())
			}
			if b.release(); room.used.Load() != 0 {
				t.Errorf("%d are taken at the end", room.used.Load())
			}
		})
	}
}

// TestRoomIsGivenBack holds that whatever becomes of requests, nothing stays counted.
func TestRoomIsGivenBack(t *testing.T) {
	t.Parallel()
	o := options()
	o.Limits.Body, o.BytesInHand = 100_000, 300_000
	o.Tokens, o.WebhookSecrets = []string{"one"}, []string{"whsec_b3Vycw=="}
	d := door(t, o, store{publish: func(_ context.Context, r *envelope.Request) error {
		if len(r.Body)%2 == 0 {
			return context.DeadlineExceeded
		}
		return nil
	}})
	var clients sync.WaitGroup
	for i := range 200 {
		clients.Go(func() {
			r := request("POST", "/fallback", strings.Repeat("x", i*600))
			switch i % 4 {
			case 0:
				r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("x"),
					broken{io.ErrUnexpectedEOF})), -1
			case 1:
				r.ContentLength = -1
			case 2:
				r.Header.Set("Webhook-Id", "msg_1")
				r.Header.Set("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()))
				r.Header.Set("Webhook-Signature", "v1,MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
			}
			if i%4 != 2 {
				r.Header.Set("Fallback-Authorization", "Bearer one")
			}
			serve(d, r)
		})
	}
	clients.Wait()
	if requests, bytes := d.InHand(); requests != 0 || bytes != 0 || len(d.bodies.arriving) != 0 {
		t.Errorf("%d requests, %d bytes and %d bodies are in hand", requests, bytes, len(d.bodies.arriving))
	}
}
