//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%d %.300s", r.status, bytes.TrimSpace(r.body)) }

// id is that of the stored request.
func (r reply) id() string { return r.header.Get("Fallback-Id") }

// client keeps enough connections for a test's senders, and gives up on nothing that the server answers in time.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: harness.Patience}

// exchange sends one request. header is pairs of name and value.
func exchange(method, url, body string, header ...string) (reply, error) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, answer}, err
}

// send is exchange for a test that cannot go on without an answer.
func send(t *testing.T, method, url, body string, header ...string) reply {
	t.Helper()
	r, err := exchange(method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkAccepted is for the answer to what must have been stored.
func checkAccepted(t *testing.T, r reply) {
	t.Helper()
	if r.status != http.StatusAccepted || r.id() == "" {
		t.Errorf("got %s with id %q, want 202", r, r.id())
	}
}

// checkProblem holds what every error answer has: the form of RFC 9457, a stable type, a time to come back where that
// helps, and nothing that tells of the broker or of who talks to it.
func checkProblem(t *testing.T, r reply, status int, name string) {
	t.Helper()
	checkTellsNothing(t, r)
	if r.status != status {
		t.Errorf("got %s, want %d", r, status)
		return
	}
	var p struct {
		Type, Title string
		Status      int
	}
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Errorf("%v: %s", err, r)
		return
	}
	if p.Type != "urn:fallback:problem:"+name || p.Title == "" || p.Status != status {
		t.Errorf("got %s, want a problem %s", r, name)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type of %s: got %q", r, got)
	}
	if got := r.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control of %s: got %q", r, got)
	}
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	if comeBack := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests; comeBack &&
		(err != nil || seconds < 1) {
		t.Errorf("Retry-After of %s: got %q", r, r.header.Get("Retry-After"))
	}
}

// checkTellsNothing looks for what no client may learn, in the body and in every header.
func checkTellsNothing(t *testing.T, r reply) {
	t.Helper()
	secrets := []string{"amqp", "://", "127.0.0.1", "localhost", broker.AMQP, broker.Management, "goroutine", ".go:"}
	for _, user := range []string{topology.Admin, topology.Publisher, topology.Drainer, topology.Monitor} {
		secrets = append(secrets, user, topology.Demonstration(user).Plain)
	}
	var header bytes.Buffer
	_ = r.header.Write(&header)
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(header.String()+string(r.body)), strings.ToLower(secret)) {
			t.Errorf("the answer holds %q: %s%s", secret, &header, r.body)
		}
	}
}

// stored takes the message of an answer off the queue: the next one must be it.
func stored(t *testing.T, reader *harness.Reader, r reply) amqp.Delivery {
	t.Helper()
	checkAccepted(t, r)
	message := reader.Next(t)
	if message.MessageId != r.id() {
		t.Fatalf("message %s is on the queue, want %s", message.MessageId, r.id())
	}
	return message
}

// slowRequest is a request in the server's hand: its headers are there, its body is not.
type slowRequest struct {
	net.Conn
	in *bufio.Reader
}

// begin sends the first part of a request.
func begin(t *testing.T, addr, part string) *slowRequest {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	if _, err := io.WriteString(conn, part); err != nil {
		t.Fatal(err)
	}
	return &slowRequest{conn, bufio.NewReader(conn)}
}

// inHand is a request that the server has begun to read the body of: it is admitted and counted. framing is the header
// line that says how long the body is.
func inHand(t *testing.T, addr, framing string) *slowRequest {
	t.Helper()
	s := begin(t, addr, "POST /fallback HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"+framing+"\r\n\r\n")
	if r, err := s.answer(); err != nil || r.status != http.StatusContinue {
		t.Fatalf("got %s, %v, want to be asked for the body", r, err)
	}
	return s
}

// finish sends the rest and reads the answer.
func (s *slowRequest) finish(t *testing.T, rest string) reply {
	t.Helper()
	if _, err := io.WriteString(s, rest); err != nil {
		t.Fatal(err)
	}
	r, err := s.answer()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *slowRequest) answer() (reply, error) {
	response, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return reply{}, err
	}
	body, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, body}, err
}

// TestDoorTokens holds that a token lets in and stays out of the queue, and that the client's own credentials are the
// primary's and go there.
func TestDoorTokens(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TOKENS": "first-token,second-token"})
	reader := vhost.Reader(t, topology.DefaultQueue)
	for _, row := range []struct{ name, header, value string }{
		{"none", "X-Nothing", "x"},
		{"a wrong one", "Fallback-Authorization", "Bearer third-token"},
		{"a right one in the wrong place", "X-Authorization", "Bearer first-token"},
		{"another scheme", "Fallback-Authorization", "Basic first-token"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := send(t, "POST", server.URL+"/fallback", row.name, row.header, row.value)
			checkProblem(t, r, http.StatusUnauthorized, "unauthorized")
			if got := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer ") {
				t.Errorf("WWW-Authenticate: got %q", got)
			}
		})
	}
	for _, token := range []string{"first-token", "second-token"} {
		t.Run(token, func(t *testing.T) {
			r := send(t, "POST", server.URL+"/fallback", token,
				"Fallback-Authorization", "Bearer "+token, "Authorization", "Bearer the-primary's")
			message := stored(t, reader, r) // the first one: nothing of the strangers' is before it
			if got := byName(replay(t, message).Header)["Authorization"]; !slices.Equal(got,
				[]string{"Bearer the-primary's"}) {
				t.Errorf("Authorization: got %q", got)
			}
			if whole := fmt.Sprint(message.Headers); strings.Contains(whole, "Fallback-Authorization") ||
				strings.Contains(whole, token) {
				t.Errorf("the token was stored: %s", whole)
			}
		})
	}
	for _, row := range []struct {
		name, path string
		header     []string
	}{
		{"as Authorization", "/orders", []string{"Authorization", "Bearer first-token"}},
		{"in the path", "/-/second-token/orders", nil},
		{"everywhere", "/-/first-token/orders",
			[]string{"Authorization", "Bearer first-token", "Referer", server.URL + "/fallback/-/first-token/orders"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			message := stored(t, reader, send(t, "POST", server.URL+"/fallback"+row.path, row.name, row.header...))
			if target := replay(t, message).Target; target != "/orders" {
				t.Errorf("target: got %q", target)
			}
			if whole := fmt.Sprint(message.Headers); strings.Contains(whole, "-token") {
				t.Errorf("the token was stored: %s", whole)
			}
		})
	}
	refused := send(t, "POST", server.URL+"/fallback/-/third-token/orders", "x")
	checkProblem(t, refused, http.StatusUnauthorized, "unauthorized")
	if log := server.Log.String(); strings.Contains(log, "-token") {
		t.Error("a token is in the log")
	}
}

// TestDoorSignatures holds that a webhook's signature lets it in while it is fresh and true.
func TestDoorSignatures(t *testing.T) {
	t.Parallel()
	const secret, foreign = "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ=", "whsec_Zm9yZWlnbg=="
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_WEBHOOK_SECRETS": secret})
	reader := vhost.Reader(t, topology.DefaultQueue)
	const body = `{"type":"order.paid"}`
	signed := func(t *testing.T, secret, body string, at time.Time) []string {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := wh.Sign("msg_1", at, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return []string{
			standardwebhooks.HeaderWebhookID, "msg_1",
			standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10),
			standardwebhooks.HeaderWebhookSignature, signature,
		}
	}
	now := time.Now()
	for _, row := range []struct {
		name   string
		header []string
	}{
		{"none", nil},
		{"by another secret", signed(t, foreign, body, now)},
		{"of another body", signed(t, secret, "{}", now)},
		{"six minutes old", signed(t, secret, body, now.Add(-6*time.Minute))},
	} {
		t.Run(row.name, func(t *testing.T) {
			checkProblem(t, send(t, "POST", server.URL+"/fallback", body, row.header...), http.StatusUnauthorized,
				"unauthorized")
		})
	}
	t.Run("fresh", func(t *testing.T) {
		message := stored(t, reader, send(t, "POST", server.URL+"/fallback", body, signed(t, secret, body, now)...))
		if string(message.Body) != body {
			t.Errorf("stored: got %q", message.Body)
		}
	})
}

func TestDoorRateLimit(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_RATE_LIMIT": "2"})
	server.WaitReady(t)
	var taken, refused int
	for range 20 {
		r := send(t, "POST", server.URL+"/fallback", "x")
		if r.status == http.StatusAccepted {
			taken++
			continue
		}
		refused++
		checkProblem(t, r, http.StatusTooManyRequests, "rate-limited")
	}
	if taken < 2 || refused == 0 {
		t.Errorf("%d of 20 were taken, %d refused: want 2 at the least, and some", taken, refused)
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != taken {
		t.Errorf("%d messages on the queue, %d answers of 202", n, taken)
	}
	if r := send(t, "GET", server.URL+"/livez", ""); r.status != http.StatusOK {
		t.Errorf("/livez: got %s", r)
	}
	harness.Within(t, time.Second, "to be taken again", func() bool {
		return send(t, "POST", server.URL+"/fallback", "x").status == http.StatusAccepted
	})
}

// TestDoorMethods holds that a request whose client needs the primary's answer is sent back to it.
func TestDoorMethods(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	reader := vhost.Reader(t, topology.DefaultQueue)
	server := vhost.Serve(t, nil)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE"} {
		r := send(t, method, server.URL+"/fallback/orders", "")
		if method == "HEAD" {
			if len(r.body) > 0 {
				t.Errorf("HEAD: got the body %q", r.body)
			}
			r.body = []byte(`{"type":"urn:fallback:problem:method-not-queued","title":"-","status":503}`)
		}
		checkProblem(t, r, http.StatusServiceUnavailable, "method-not-queued")
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		message := stored(t, reader, send(t, method, server.URL+"/fallback/orders", "x"))
		if got := replay(t, message).Method; got != method {
			t.Errorf("%s was stored as %s", method, got)
		}
	}
	only := vhost.Serve(t, harness.Settings{"FALLBACK_METHODS": "GET"})
	stored(t, reader, send(t, "GET", only.URL+"/fallback", ""))
	checkProblem(t, send(t, "POST", only.URL+"/fallback", "x"), http.StatusServiceUnavailable, "method-not-queued")
}

// TestDoorPrefix holds that the prefix is a whole part of the path.
func TestDoorPrefix(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	reader := vhost.Reader(t, topology.DefaultQueue)
	for _, uri := range []string{"/", "/fallbackx", "/fallbac", "/x/fallback", "/Fallback", "/fallback%2Fx"} {
		checkProblem(t, send(t, "POST", server.URL+uri, "x"), http.StatusNotFound, "not-found")
	}
	for _, row := range []struct{ uri, target string }{
		{"/fallback", "/"},
		{"/fallback?x=1", "/?x=1"},
		{"/fallback/", "/"},
		{"/fallback/livez", "/livez"},
		{"/fallback/orders/42?x=1", "/orders/42?x=1"},
	} {
		message := stored(t, reader, send(t, "POST", server.URL+row.uri, "x"))
		if got := replay(t, message).Target; got != row.target {
			t.Errorf("%s was stored as %s, want %s", row.uri, got, row.target)
		}
	}
}

// TestDoorTakesEveryPath holds that behind the prefix "/" only the questions about health are ours.
func TestDoorTakesEveryPath(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_PATH_PREFIX": "/", "FALLBACK_METHODS": "GET,HEAD,POST"})
	reader := vhost.Reader(t, topology.DefaultQueue)
	for _, path := range []string{"/livez", "/readyz"} {
		for _, method := range []string{"GET", "HEAD"} {
			if r := send(t, method, server.URL+path, ""); r.status != http.StatusOK {
				t.Errorf("%s %s: got %s", method, path, r)
			}
		}
	}
	for _, row := range []struct{ method, uri string }{
		{"POST", "/"}, {"POST", "/fallback/x"}, {"POST", "/orders?x=1"}, {"POST", "/livez"}, {"POST", "/readyz"},
		{"GET", "/orders"}, {"GET", "/livez/x"}, {"GET", "/x/readyz"},
	} {
		message := stored(t, reader, send(t, row.method, server.URL+row.uri, "x"))
		if got := replay(t, message); got.Method != row.method || got.Target != row.uri {
			t.Errorf("%s %s was stored as %s %s", row.method, row.uri, got.Method, got.Target)
		}
	}
}

// TestDoorHealth holds what the two questions are about, and that no cache keeps an answer.
func TestDoorHealth(t *testing.T) {
	t.Parallel()
	server := broker.VHost(t).Serve(t, nil)
	server.WaitReady(t)
	for _, path := range []string{"/livez", "/readyz"} {
		r := send(t, "GET", server.URL+path, "")
		if r.status != http.StatusOK || r.header.Get("Cache-Control") != "no-store" || !json.Valid(r.body) {
			t.Errorf("%s: got %s with %v", path, r, r.header)
		}
		checkTellsNothing(t, r)
	}
	nowhere := broker.VHost(t)
	if err := broker.Call("DELETE", "/api/vhosts/"+nowhere.Name, nil, nil); err != nil {
		t.Fatal(err)
	}
	homeless := nowhere.Serve(t, nil)
	checkProblem(t, send(t, "GET", homeless.URL+"/readyz", ""), http.StatusServiceUnavailable, "broker-unavailable")
	checkProblem(t, send(t, "POST", homeless.URL+"/fallback", "x"), http.StatusServiceUnavailable, "broker-unavailable")
	if r := send(t, "GET", homeless.URL+"/livez", ""); r.status != http.StatusOK ||
		r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("/livez without a broker: got %s with %v", r, r.header)
	}
}

// unconfirmed sends requests to a server whose broker says nothing, until release, and waits until all are being
// stored.
func unconfirmed(t *testing.T, settings harness.Settings, bodies ...string) (server *harness.Server,
	release func() []reply) {
	t.Helper()
	vhost := broker.VHost(t)
	far, err := harness.Far(broker.AMQP, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.Close)
	settings["AMQP_SERVER_URL"] = strings.Replace(vhost.URL(topology.Publisher), broker.AMQP, far.Addr, 1)
	settings["FALLBACK_TIMEOUT"] = "1m"
	server = vhost.Serve(t, settings)
	server.WaitReady(t)
	far.Hold()
	held := true
	t.Cleanup(func() {
		if held {
			far.Release()
		}
	})
	answers := make(chan reply, len(bodies))
	total := 0
	for _, body := range bodies {
		total += len(body)
		go func() {
			r, err := exchange("POST", server.URL+"/fallback", body)
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
	}
	harness.Eventually(t, "the requests to be in hand", func() bool {
		s := scrape(t, server.URL)
		return s["fallback_requests_in_hand"] == float64(len(bodies)) && s["fallback_bytes_in_hand"] == float64(total)
	})
	return server, func() (all []reply) {
		far.Release()
		held = false
		for range bodies {
			all = append(all, <-answers)
		}
		return all
	}
}

// TestDoorOverload holds that one request too many is sent away at once, and that the others and the next ones are not.
func TestDoorOverload(t *testing.T) {
	t.Parallel()
	server, release := unconfirmed(t, harness.Settings{"FALLBACK_MAX_IN_FLIGHT": "2"}, "one", "two")
	checkOverloaded(t, server, "x")
	for _, r := range release() {
		checkAccepted(t, r)
	}
	checkAccepted(t, send(t, "POST", server.URL+"/fallback", "x"))
}

// checkOverloaded holds that more is refused, and does not have to wait to hear it.
func checkOverloaded(t *testing.T, server *harness.Server, body string) {
	t.Helper()
	for range 3 {
		w := harness.StartWatch()
		checkProblem(t, send(t, "POST", server.URL+"/fallback", body), http.StatusServiceUnavailable, "overloaded")
		w.Hold(t, time.Second, "the answer")
	}
}

// TestDoorBytesInHand holds that a body for which there is no room is refused, and that there is room again when those
// before it are done.
func TestDoorBytesInHand(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1000)
	server, release := unconfirmed(t, harness.Settings{"FALLBACK_MAX_BODY_BYTES": "1000",
		"FALLBACK_MAX_BYTES_IN_HAND": "2500"}, body, body)
	checkOverloaded(t, server, body)
	for _, r := range release() {
		checkAccepted(t, r)
	}
	checkAccepted(t, send(t, "POST", server.URL+"/fallback", body))
}

// TestDoorMemory holds that clients which announce bodies and send half of them cost no more memory than may be in
// hand. It measures the whole process, so it runs alone.
func TestDoorMemory(t *testing.T) {
	const mebibyte, clients = 1 << 20, 96
	server := broker.VHost(t).Serve(t, harness.Settings{"FALLBACK_MAX_BYTES_IN_HAND": strconv.Itoa(8 * mebibyte),
		"FALLBACK_TIMEOUT": "1m"})
	server.WaitReady(t)
	before := heap()
	var waiting []*slowRequest
	for range clients {
		waiting = append(waiting, begin(t, server.Addr, fmt.Sprintf("POST /fallback HTTP/1.1\r\nHost: "+
			"h\r\nContent-Length: %d\r\n\r\n", mebibyte)))
	}
	refused := make(chan reply, clients)
	half := make([]byte, mebibyte/2)
	for _, s := range waiting {
		go func() { _, _ = s.Write(half) }() // it fails for one that is refused
		go func() {
			if r, err := s.answer(); err == nil {
				refused <- r
			}
		}()
	}
	for range clients - 16 { // half of a body takes half of its room, at the least
		select {
		case r := <-refused:
			checkProblem(t, r, http.StatusServiceUnavailable, "overloaded")
		case <-time.After(harness.Patience):
			t.Fatal("too many requests are in hand")
		}
	}
	if grown := heap() - before; grown > 32*mebibyte {
		t.Errorf("%d MiB were taken for 8 MiB in hand", grown/mebibyte)
	}
	for _, s := range waiting {
		_ = s.Close()
	}
	harness.Eventually(t, "the room to come back", func() bool {
		return send(t, "POST", server.URL+"/fallback", strings.Repeat("x", mebibyte)).status == http.StatusAccepted
	})
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestGracefulStop holds that what is in hand when the server is told to stop is finished: it is stored and answered
// for, while nobody new is let in, and the server ends within ten seconds.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": "20s"})
	server.WaitReady(t)
	var unfinished []*slowRequest
	for range 4 {
		unfinished = append(unfinished, inHand(t, server.Addr, "Content-Length: 4"))
	}
	idle := begin(t, server.Addr, "")
	kept := inHand(t, server.Addr, "Content-Length: 4")
	checkAccepted(t, kept.finish(t, "body"))
	stop := harness.StartWatch()
	stopped := make(chan error, 1)
	go func() { stopped <- server.Stop() }()
	waitRefused(t, server)
	select {
	case err := <-stopped:
		t.Fatalf("the server ended with %v while requests were in hand", err)
	default:
	}
	for _, s := range unfinished {
		checkAccepted(t, s.finish(t, "body"))
	}
	if err := <-stopped; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	stop.Hold(t, 10*time.Second, "the server's end")
	for name, s := range map[string]*slowRequest{"that never asked": idle, "that was kept": kept} {
		if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) && !isReset(err) {
			t.Errorf("a connection %s: got %v, want the end", name, err)
		}
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 5 {
		t.Errorf("%d messages on the queue, want 5", n)
	}
}

// waitRefused waits until the server takes no new connection.
func waitRefused(t *testing.T, server *harness.Server) {
	t.Helper()
	harness.Eventually(t, "new connections to be refused", func() bool {
		conn, err := net.Dial("tcp", server.Addr)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// isReset says that the peer cut the connection.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}
