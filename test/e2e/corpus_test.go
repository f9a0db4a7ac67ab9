//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/rabbit"
	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/harness"
)

// TestCorpusThroughServer holds that what comes off the queue, turned back into a request, is what went in, byte for
// byte, for every request of the corpus.
func TestCorpusThroughServer(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	reader := vhost.Reader(t, topology.DefaultQueue)
	for _, in := range corpus.All() {
		t.Run(in.Name, func(t *testing.T) {
			response, from := sendRawFrom(t, server.Addr, in.Raw)
			if response.StatusCode != http.StatusAccepted {
				t.Fatalf("answer: %s", response.Status)
			}
			message := reader.Next(t)
			if id := response.Header.Get("Fallback-Id"); message.MessageId != id {
				t.Fatalf("message id %q, Fallback-Id %q", message.MessageId, id)
			}
			checkSame(t, in, message)
			checkConnection(t, message, "http", from)
		})
	}
}

// sendRaw puts bytes on the wire as they are and reads one answer.
func sendRaw(t *testing.T, addr string, raw []byte) *http.Response {
	t.Helper()
	response, _ := sendRawFrom(t, addr, raw)
	return response
}

// sendRawFrom is sendRaw and the address that it was sent from.
func sendRawFrom(t *testing.T, addr string, raw []byte) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	go func() { _, _ = conn.Write(raw) }() // the server may answer before it has read all
	in := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusContinue {
			response.Body = io.NopCloser(bytes.NewReader(body))
			return response, conn.LocalAddr().String()
		}
	}
}

// checkConnection holds what a message of the corpus says of the connection that its request came over.
func checkConnection(t *testing.T, message amqp.Delivery, scheme, remote string) {
	t.Helper()
	r, err := rabbit.FromMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, got, want string }{
		{"scheme", r.Scheme, scheme},
		{"host", r.Host, corpus.Host},
		{"proto", r.Proto, "HTTP/1.1"},
		{"remote", r.Remote, remote},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %q, want %q", row.what, row.got, row.want)
		}
	}
}

// checkSame compares a request of the corpus with what its message replays as: the bytes on the wire, parsed by the
// corpus's own parser on both sides.
func checkSame(t *testing.T, want corpus.Request, message amqp.Delivery) {
	t.Helper()
	checkSameRequest(t, replay(t, message), want)
}

// checkSameRequest compares two requests as they are on the wire, but for the door's prefix and for what is made anew
// for each hop.
func checkSameRequest(t *testing.T, got, want corpus.Request) {
	t.Helper()
	if got.Method != want.Method {
		t.Errorf("method: got %q, want %q", got.Method, want.Method)
	}
	if target := strings.TrimPrefix(want.Target, "/fallback"); got.Target != target {
		t.Errorf("target: got %q, want %q", got.Target, target)
	}
	if !bytes.Equal(got.Body, want.Body) {
		t.Errorf("body: got %d bytes %.200q, want %d bytes %.200q", len(got.Body), got.Body, len(want.Body), want.Body)
	}
	checkFields(t, "header", got.Header, want.Header)
	checkFields(t, "trailer", got.Trailer, want.Trailer)
}

// replay is the request as it would reach the primary, read off the wire.
func replay(t *testing.T, message amqp.Delivery) corpus.Request {
	t.Helper()
	request, err := rabbit.FromMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	base, _ := url.Parse("http://primary.example.com")
	out, err := request.HTTP(context.Background(), base)
	if err != nil {
		t.Fatal(err)
	}
	var wire bytes.Buffer
	if err := out.Write(&wire); err != nil {
		t.Fatal(err)
	}
	parsed, err := corpus.Parse("replay", wire.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%q", err, wire.Bytes())
	}
	return parsed
}

// framing are the headers that belong to one connection or follow from the body, and are made anew for each hop.
var framing = []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Expect"}

// checkFields compares all values of every name, in their order. The case of names and the order of different names
// carry no meaning in HTTP.
func checkFields(t *testing.T, what string, got, want []corpus.Field) {
	t.Helper()
	g, w := byName(got), byName(want)
	for name, values := range w {
		if !slices.Equal(g[name], values) {
			t.Errorf("%s %s: got %q, want %q", what, name, g[name], values)
		}
	}
	for name, values := range g {
		if _, ok := w[name]; !ok {
			t.Errorf("%s %s: got %q, want none", what, name, values)
		}
	}
}

func byName(fields []corpus.Field) map[string][]string {
	m := map[string][]string{}
	for _, f := range fields {
		if name := textproto.CanonicalMIMEHeaderKey(f.Name); !slices.Contains(framing, name) {
			m[name] = append(m[name], f.Value)
		}
	}
	return m
}
