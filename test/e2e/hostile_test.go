//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/harness"
)

// collector takes everything off a queue as it comes.
type collector struct {
	conn *amqp.Connection

	mu       sync.Mutex // guards messages
	messages map[string][]amqp.Delivery
}

// collect begins to, until the test ends or the collector's connection is closed.
func collect(t *testing.T, vhost *harness.VHost, queue string) *collector {
	t.Helper()
	conn, err := amqp.Dial(vhost.URL(topology.Drainer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Qos(200, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{conn: conn, messages: map[string][]amqp.Delivery{}}
	go func() {
		for d := range deliveries {
			c.mu.Lock()
			c.messages[d.MessageId] = append(c.messages[d.MessageId], d)
			c.mu.Unlock()
			_ = d.Ack(false)
		}
	}()
	return c
}

// of is every message with that id.
func (c *collector) of(id string) []amqp.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.messages[id])
}

// wait is for the one message with that id.
func (c *collector) wait(t *testing.T, id string) amqp.Delivery {
	t.Helper()
	var found []amqp.Delivery
	harness.Eventually(t, "message "+id, func() bool { found = c.of(id); return len(found) > 0 })
	return found[0]
}

// with is the ids of the messages that hold text in their body.
func (c *collector) with(text string) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, messages := range c.messages {
		if strings.Contains(string(messages[0].Body), text) {
			ids = append(ids, id)
		}
	}
	return ids
}

// load is senders that post until they are told to stop, each no faster than one request in pace.
type load struct {
	stop chan struct{}
	work sync.WaitGroup

	mu       sync.Mutex        // guards the rest until end has returned
	accepted map[string]string // id and body
	refused  []reply
	failed   []string          // got no answer
	times    []harness.Elapsed // to each answer
}

// startLoad begins to post bodies that are like no other.
func startLoad(server *harness.Server, senders int, pace time.Duration) *load {
	l := &load{stop: make(chan struct{}), accepted: map[string]string{}}
	for sender := range senders {
		l.work.Go(func() { l.send(server, sender, pace) })
	}
	return l
}

func (l *load) send(server *harness.Server, sender int, pace time.Duration) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		}
		body := fmt.Sprintf("load %d %d ", sender, n) + strings.Repeat("x", (n*37)%2000)
		w := harness.StartWatch()
		r, err := exchange("POST", server.URL+"/fallback/load", body)
		l.note(body, r, err, w.Elapsed())
	}
}

func (l *load) note(body string, r reply, err error, e harness.Elapsed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, e)
	switch {
	case err != nil:
		l.failed = append(l.failed, err.Error())
	case r.status == http.StatusAccepted:
		l.accepted[r.id()] = body
	default:
		l.refused = append(l.refused, r)
	}
}

// end stops the senders and waits for their last answers.
func (l *load) end() {
	close(l.stop)
	l.work.Wait()
}

// answered is how many requests got a 202 so far, and how many another answer.
func (l *load) answered() (accepted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted), len(l.refused)
}

// talk sends bytes as they are and reads answers until the server closes the connection or says nothing for a moment
// after the last one. No answers at all means that it closed without one.
func talk(t *testing.T, addr string, raw []byte) []reply {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = conn.Write(raw) }() // the server may answer before it has read all
	in := bufio.NewReader(conn)
	var replies []reply
	_ = conn.SetReadDeadline(time.Now().Add(harness.Patience))
	for {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			if len(replies) == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("neither an answer nor the end of the connection came")
			}
			return replies
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Errorf("an answer that breaks off: %v", err)
		}
		replies = append(replies, reply{response.StatusCode, response.Header, body})
		if response.StatusCode != http.StatusContinue {
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
	}
}

// brokerConnection waits until the broker knows of exactly one connection of the publisher's user to the virtual host,
// and returns its name, which has the client's port in it: a new connection has another one.
func brokerConnection(t *testing.T, vhost *harness.VHost) (name string) {
	t.Helper()
	harness.Eventually(t, "one connection to the broker", func() bool {
		var connections []struct{ Name, User string }
		if err := vhost.Call(http.MethodGet, "/api/vhosts/"+vhost.Name+"/connections", nil, &connections); err != nil {
			t.Fatal(err)
		}
		connections = slices.DeleteFunc(connections,
			func(c struct{ Name, User string }) bool { return c.User != topology.Publisher })
		if len(connections) != 1 {
			return false
		}
		name = connections[0].Name
		return true
	})
	return name
}

// TestHostileInput holds that whatever one client sends gets the right answer, or none, and that the requests of the
// others do not notice: all of them are stored once, as they are, over one and the same connection to the broker.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	queue := collect(t, vhost, topology.DefaultQueue)
	before := brokerConnection(t, vhost)
	others := startLoad(server, 8, 25*time.Millisecond)

	t.Run("input", func(t *testing.T) {
		hostileRows(t, server, queue)
		t.Run("a slow body", func(t *testing.T) { t.Parallel(); slowBody(t, server, 5*time.Second) })
		t.Run("headers that do not end", func(t *testing.T) { t.Parallel(); slowHeaders(t, server, 5*time.Second) })
		t.Run("gone in the middle of the body", func(t *testing.T) { t.Parallel(); goneMidBody(t, server) })
		t.Run("gone after the body", func(t *testing.T) { t.Parallel(); goneAfterBody(t, server, queue) })
	})

	others.end()
	last := send(t, "POST", server.URL+"/fallback", "the last one")
	queue.wait(t, last.id()) // and with it everything before it, whoever sent it
	if len(others.refused)+len(others.failed) > 0 {
		t.Errorf("%d of the others were refused %.500v, %d failed %.500q", len(others.refused), others.refused,
			len(others.failed), others.failed)
	}
	if len(others.accepted) < 100 {
		t.Errorf("only %d others were in flight", len(others.accepted))
	}
	for id, body := range others.accepted {
		if got := queue.of(id); len(got) != 1 || string(got[0].Body) != body {
			t.Errorf("%.20q came off the queue %d times, or changed", body, len(got))
		}
	}
	if never := queue.with("never"); len(never) > 0 {
		t.Errorf("%d requests that were refused or broke off are on the queue", len(never))
	}
	if after := brokerConnection(t, vhost); after != before {
		t.Errorf("the connection to the broker is %s, it was %s", after, before)
	}
	if log := server.Log.String(); strings.Count(log, `msg="connected to the broker"`) != 1 ||
		strings.Contains(log, "connection to the broker lost") {
		t.Error("the connection to the broker was another in between")
	}
}

// hostileRows are what can be sent in one go. A body that must not be stored says "never".
func hostileRows(t *testing.T, server *harness.Server, queue *collector) {
	const head, limit = "POST /fallback/hostile HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", 1 << 20
	full := strings.Repeat("f", limit)
	over := "never" + full[4:]
	chunked := func(body string) string {
		return head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	plain := func(body string) string { return head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	header := func(line string) string { return head + line + "\r\nContent-Length: 5\r\n\r\nnever" }
	for _, row := range []struct {
		name, raw string
		status    int    // 0 when the server may close without an answer
		problem   string // empty for a 202, and where net/http answers by itself
	}{
		{"a Content-Type of 330 bytes", head + "Content-Type: text/" + strings.Repeat("t", 325) +
			"\r\nContent-Length: 2\r\n\r\nok", 202, ""},
		{"a header name of 300 bytes", head + strings.Repeat("N", 300) + ": v\r\nContent-Length: 2\r\n\r\nok", 202, ""},
		{"a header that is no UTF-8", head + "X-Odd: \xff\xfe\xe9\r\nContent-Length: 2\r\n\r\nok", 202, ""},
		{"100 KB of headers", header("X-Big: " + strings.Repeat("h", 100_000)), 431, "headers-too-large"},
		{"100 KB of headers, one by one", header(manyHeaders(10_000)), 431, "headers-too-large"},
		{"a header of 500 values", head + strings.Repeat("X: v\r\n", 500) + "Content-Length: 2\r\n\r\nok", 202, ""},
		{"a header of 600 values", head + strings.Repeat("X: v\r\n", 600) + "Content-Length: 5\r\n\r\nnever", 431,
			"headers-too-large"},
		{"250 KB of header names", header(tinyFields(250_000) + "X: y"), 431, "headers-too-large"},
		{"300 KB of headers", header("X-Big: " + strings.Repeat("h", 300_000)), 431, "headers-too-large"},
		{"a trailer of 600 lines", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nnever\r\n0\r\n" +
			strings.Repeat("X:\r\n", 600) + "\r\n", 431, "headers-too-large"},
		{
			"headers that grow in JSON", // six bytes for each quote and control character that is allowed
			header("X-Grow: " + strings.Repeat("\t\"", 20_000) + "x"), 431, "headers-too-large",
		},
		{"a URL of 100 KB", "POST /fallback/" + strings.Repeat("u", 100_000) +
			" HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nnever", 431, "headers-too-large"},
		{"a body at the limit", plain(full), 202, ""},
		{"a body at the limit, chunked", chunked(full), 202, ""},
		{"a body over the limit", plain(over), 413, "body-too-large"},
		{"a body over the limit, chunked", chunked(over), 413, "body-too-large"},
		{"ten times the limit, chunked", chunked("never" + strings.Repeat(full, 10)), 413, "body-too-large"},
		{"a length that no memory has", head + "Content-Length: 9223372036854775807\r\n\r\nnever", 413,
			"body-too-large"},
		{"a length that is no number", head + "Content-Length: 9223372036854775808\r\n\r\nnever", 400, ""},
		{"a negative length", head + "Content-Length: -1\r\n\r\nnever", 400, ""},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nnever!", 400, ""},
		{"an unknown transfer coding", head + "Transfer-Encoding: gzip\r\n\r\nnever", 501, ""},
		{"too large and asking first", head +
			fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", limit+1), 413, "body-too-large"},
		{"an expectation of nobody", head + "Expect: a miracle\r\nContent-Length: 5\r\n\r\nnever", 417, ""},
		{"a chunk without a size", head + "Transfer-Encoding: chunked\r\n\r\nnever\r\n0\r\n\r\n", 400, "unreadable"},
		{"a chunk of another size", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nnever\r\n0\r\n\r\n", 400,
			"unreadable"},
		{"a chunk of a huge size", head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("f", 17) + "\r\nnever",
			400, "unreadable"},
		{"a line end in a header", header("X-Bad: a\rb"), 400, ""},
		{"a zero byte in a header", header("X-Bad: a\x00b"), 400, ""},
		{"white space before a colon", header("X-Bad : a"), 400, ""},
		{"no Host", "POST /fallback/hostile HTTP/1.1\r\nContent-Length: 5\r\n\r\nnever", 400, ""},
		{"two Hosts", head + "Host: i\r\nContent-Length: 5\r\n\r\nnever", 400, ""},
		{"no Host in HTTP/1.0", "POST /fallback/hostile HTTP/1.0\r\nContent-Length: 2\r\n\r\nok", 202, ""},
		{"HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, ""},
		{"a whole URL", "POST http://proxied.example.com/fallback/hostile HTTP/1.1\r\nHost: h\r\nConnection: " +
			"close\r\nContent-Length: 2\r\n\r\nok", 202, ""},
		{"a whole URL of another path", "POST http://proxied.example.com/never HTTP/1.1\r\nHost: h\r\nConnection: " +
			"close\r\nContent-Length: 5\r\n\r\nnever", 404, "not-found"},
		{"a target that is a star", "POST * HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nnever",
			404, "not-found"},
		{"a tunnel", "CONNECT never.example.com:443 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404,
			"not-found"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03never\n\n\r\n\r\n", 400, ""},
		{"another protocol", "SSH-2.0-OpenSSH_9.9\r\n\r\n\r\n", 400, ""},
		{"nothing but line ends", strings.Repeat("\r\n", 100) + "\r\n\r\n", 400, ""},
		{"noise", strings.Repeat("\xde\xad\xbe\xef\n", 200), 400, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			replies := talk(t, server.Addr, []byte(row.raw))
			for _, r := range replies {
				checkTellsNothing(t, r)
			}
			switch {
			case row.status == 0 && len(replies) == 0:
				return
			case len(replies) != 1:
				t.Fatalf("got %d answers %v, want one", len(replies), replies)
			case row.status == 0 && replies[0].status < 400:
				t.Errorf("got %s, want an error", replies[0])
			case row.status == 0:
			case row.problem != "":
				checkProblem(t, replies[0], row.status, row.problem)
			case replies[0].status != row.status:
				t.Errorf("got %s, want %d", replies[0], row.status)
			}
			if row.status == http.StatusAccepted {
				checkHostileStored(t, row.raw, queue.wait(t, replies[0].id()))
			}
		})
	}
}

// manyHeaders are n header lines of different names.
func manyHeaders(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-%d: v", i))
	}
	return strings.Join(lines, "\r\n")
}

// tinyFields are header lines of names that are as short as can be, and all different, of size bytes in all.
func tinyFields(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		for rest := i; ; rest /= len(letters) {
			b.WriteByte(letters[rest%len(letters)])
			if rest < len(letters) {
				break
			}
		}
		b.WriteString(":\r\n")
	}
	return b.String()
}

// checkHostileStored compares what was stored with what was sent.
func checkHostileStored(t *testing.T, raw string, message amqp.Delivery) {
	t.Helper()
	sent := strings.Replace(raw, " http://proxied.example.com/", " /", 1)
	want, err := corpus.Parse("sent", []byte(strings.Replace(sent, " HTTP/1.0\r\n", " HTTP/1.1\r\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, want, message)
}

// slowBody holds that a body that does not come to its end costs the timeout and no more.
func slowBody(t *testing.T, server *harness.Server, timeout time.Duration) {
	w := harness.StartWatch()
	s := begin(t, server.Addr, "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nnever")
	r, err := s.answer()
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, r, http.StatusRequestTimeout, "body-too-slow")
	w.Hold(t, timeout, "the answer to a body that does not come")
	if e := w.Elapsed(); e.Took < timeout/2 {
		t.Errorf("the answer took %s, the timeout is %s", e, timeout)
	}
}

// slowHeaders holds the same for headers; there is nobody to answer yet.
func slowHeaders(t *testing.T, server *harness.Server, timeout time.Duration) {
	w := harness.StartWatch()
	s := begin(t, server.Addr, "POST /fallback/never HTTP/1.1\r\nHost: h\r\nX-")
	if r, err := s.answer(); err == nil && r.status < 400 {
		t.Errorf("got %s, want an error or the end of the connection", r)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was never closed")
	}
	w.Hold(t, timeout, "the end of a connection without a whole head")
}

func goneMidBody(t *testing.T, server *harness.Server) {
	for _, part := range []string{
		"POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nnever",
		"POST /fallback HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nnever\r\n",
		// the last line end is missing
		"POST /fallback HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nnever\r\n0\r\n",
	} {
		for _, cut := range []bool{false, true} {
			s := begin(t, server.Addr, part)
			if cut {
				_ = s.Conn.(*net.TCPConn).SetLinger(0) // a reset in place of a good-bye
			}
			_ = s.Close()
		}
	}
}

// goneAfterBody holds that a request which came whole is stored, whether or not its client waits for the answer.
func goneAfterBody(t *testing.T, server *harness.Server, queue *collector) {
	for _, body := range []string{"gone with Content-Length", "gone, chunked"} {
		raw := fmt.Sprintf("POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if strings.Contains(body, "chunked") {
			raw = fmt.Sprintf("POST /fallback HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "+
				"chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		}
		_ = begin(t, server.Addr, raw).Close()
		harness.Eventually(t, body, func() bool { return len(queue.with(body)) > 0 })
		if ids := queue.with(body); len(ids) != 1 {
			t.Errorf("%q was stored %d times", body, len(ids))
		}
	}
}

// TestSlowBodyTimeout holds that the timeout is the setting's.
func TestSlowBodyTimeout(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": "1s"})
	server.WaitReady(t)
	t.Run("body", func(t *testing.T) { slowBody(t, server, time.Second) })
	t.Run("headers", func(t *testing.T) { slowHeaders(t, server, time.Second) })
	if n := vhost.Count(t, topology.DefaultQueue); n != 0 {
		t.Errorf("%d messages on the queue, want none", n)
	}
}

// TestOneClientHasAllSlots holds that a client with more connections than there are slots shuts out nobody: who
// comes from elsewhere is served at once, the server's own health and metrics among them, and so is the client itself
// a second later; what lost its slot is counted.
func TestOneClientHasAllSlots(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	one := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	const many = 4300
	for range many {
		conn, err := one.Dial("tcp", server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// behind that, it may stay for two minutes
		_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
	}
	ask := func(from net.Dialer, method, path string) (reply, error) {
		client := &http.Client{Timeout: harness.Patience,
			Transport: &http.Transport{DisableKeepAlives: true, DialContext: from.DialContext}}
		request, err := http.NewRequest(method, server.URL+path, strings.NewReader(""))
		if err != nil {
			return reply{}, err
		}
		response, err := client.Do(request)
		if err != nil {
			return reply{}, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return reply{response.StatusCode, response.Header, body}, err
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if r, err := ask(net.Dialer{}, "GET", path); err != nil || r.status != http.StatusOK {
			t.Errorf("%s: got %v, %s", path, err, r)
		}
	}
	if r, err := ask(net.Dialer{}, "POST", "/fallback"); err != nil || r.status != http.StatusAccepted {
		t.Errorf("a request: got %v, %s", err, r)
	}
	harness.Within(t, time.Second, "the client to be served", func() bool {
		r, err := ask(one, "POST", "/fallback")
		return err == nil && r.status == http.StatusAccepted
	})
	r, err := ask(net.Dialer{}, "GET", "/metrics")
	const lost = `fallback_connections_refused_total{reason="lost-slot"} `
	if !strings.Contains(string(r.body), lost) || strings.Contains(string(r.body), lost+"0\n") {
		t.Errorf("%v, and nobody has lost a slot in\n%s", err, r.body)
	}
}
