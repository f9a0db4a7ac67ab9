//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// What the article says, word for word: it is written out here because the contract is with the article and not with
// the constants of this code.
const (
	articleQueue = "FallbackAPIQueue"
	articleText  = "A request has been sent via fallback API"
)

// TestSeed holds the contract with the article, on the virtual host of the definitions: one after the other, since its
// queue is one for all.
func TestSeed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		test func(*testing.T)
	}{
		{"bodyless request", seedBodylessRequest},
		{"body", seedBody},
		{"queue", seedQueue},
		{"default exchange", seedDefaultExchange},
		{"list queues", seedListQueues},
		{"article's program", seedArticleProgram},
		{"article's consumer", seedArticleConsumer},
	} {
		t.Run(row.name, row.test)
	}
}

// mainHost is the virtual host of the definitions, with nothing on its main queue before the test and after it.
func mainHost(t *testing.T) *harness.VHost {
	t.Helper()
	purge := func() {
		if err := broker.Call(http.MethodDelete, "/api/queues/%2F/"+articleQueue+"/contents", nil, nil); err != nil {
			t.Error(err)
		}
	}
	purge()
	t.Cleanup(purge) // after the connections that the test opens have gone
	return broker.Main()
}

// answer is the body of a 202.
type answer struct {
	ID         string    `json:"id"`
	Queue      string    `json:"queue"`
	ReceivedAt time.Time `json:"received_at"`
}

// accepted sends a request and returns the 202 that it must get.
func accepted(t *testing.T, request *http.Request) (answer, http.Header) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("got %s %s, want 202", response.Status, body)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return a, response.Header
}

// post is a POST to the server's door; a nil body is none.
func post(t *testing.T, server *harness.Server, body io.Reader) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, server.URL+"/fallback", body)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// seedBodylessRequest holds every row of the message's table for the article's own request: a POST without a body.
func seedBodylessRequest(t *testing.T) {
	vhost := mainHost(t)
	server := vhost.Serve(t, nil)
	reader := vhost.Reader(t, articleQueue)

	request := post(t, server, nil)
	request.Header["X-Tag"] = []string{"one", "", "two"}
	sent := time.Now()
	a, header := accepted(t, request)
	m := reader.Next(t)

	if got := string(m.Body); got != articleText {
		t.Errorf("body: got %q, want %q", got, articleText)
	}
	if m.ContentType != "text/plain" {
		t.Errorf("content_type: got %q, want text/plain", m.ContentType)
	}
	if m.DeliveryMode != amqp.Persistent {
		t.Errorf("delivery_mode: got %d, want %d", m.DeliveryMode, amqp.Persistent)
	}
	if m.Exchange != "" || m.RoutingKey != articleQueue {
		t.Errorf("exchange %q, routing key %q: want the default exchange and %q", m.Exchange, m.RoutingKey,
			articleQueue)
	}
	if m.AppId != "fallback" || m.Type != "http.request" {
		t.Errorf("app_id %q, type %q: want fallback, http.request", m.AppId, m.Type)
	}

	if id, err := uuid.Parse(m.MessageId); err != nil || id.Version() != 7 || id.String() != m.MessageId {
		t.Errorf("message_id: got %q (%v), want a UUIDv7", m.MessageId, err)
	}
	if a.ID != m.MessageId || header.Get("Fallback-Id") != m.MessageId {
		t.Errorf("message_id %q, id of the answer %q, Fallback-Id %q: want the same", m.MessageId, a.ID,
			header.Get("Fallback-Id"))
	}
	if a.Queue != articleQueue {
		t.Errorf("queue of the answer: got %q, want %q", a.Queue, articleQueue)
	}
	if a.ReceivedAt.Before(sent) || a.ReceivedAt.After(time.Now()) {
		t.Errorf("received_at of the answer: got %s, sent at %s", a.ReceivedAt, sent)
	}
	if want := a.ReceivedAt.Truncate(time.Second); !m.Timestamp.Equal(want) {
		t.Errorf("timestamp: got %s, want %s", m.Timestamp, want)
	}

	checkMetadata(t, m, a, server)

	replayed := replay(t, m)
	if replayed.Method != http.MethodPost || replayed.Target != "/" || len(replayed.Body) > 0 {
		t.Errorf("replay: got %s %s with %q, want POST / without a body", replayed.Method, replayed.Target,
			replayed.Body)
	}
}

// checkMetadata compares the message's one header with the request of seedBodylessRequest.
func checkMetadata(t *testing.T, m amqp.Delivery, a answer, server *harness.Server) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(m.Headers)); !slices.Equal(got, []string{"fallback"}) {
		t.Fatalf("headers: got %q, want fallback alone, and no fallback-attempt on the first", got)
	}
	raw, ok := m.Headers["fallback"].(string)
	if !ok {
		t.Fatalf("header fallback is a %T, want a string", m.Headers["fallback"])
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(raw), &got); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}

	remote, _ := got["remote"].(string)
	if !strings.HasPrefix(remote, "127.0.0.1:") {
		t.Errorf("remote: got %q, want an address of loopback", remote)
	}
	fields, _ := got["header"].(map[string]any)
	if tags, _ := json.Marshal(fields["X-Tag"]); string(tags) != `["one","","two"]` {
		t.Errorf("header X-Tag: got %s, want every value in order", tags)
	}
	if at, _ := got["received_at"].(string); at != a.ReceivedAt.Format(time.RFC3339Nano) {
		t.Errorf("received_at: got %q, want that of the answer, %s", at, a.ReceivedAt.Format(time.RFC3339Nano))
	}
	delete(got, "remote")
	delete(got, "header")
	delete(got, "received_at")
	want := map[string]any{
		"v": 1.0, "method": "POST", "target": "/", "host": server.Addr, "scheme": "http", "proto": "HTTP/1.1",
		"prefix": "/fallback", "bodyless": true,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the rest of the metadata: got %v, want %v", got, want)
	}
}

// seedBody holds that a body goes to the queue as it is, and what its content_type becomes.
func seedBody(t *testing.T) {
	vhost := mainHost(t)
	server := vhost.Serve(t, nil)
	reader := vhost.Reader(t, articleQueue)
	longest := "text/plain; x=" + strings.Repeat("x", 255-len("text/plain; x="))
	const unknown = "application/octet-stream"
	for _, row := range []struct {
		name, contentType, want string
	}{
		{"none", "", unknown},
		{"short", "application/json", "application/json"},
		{"255 bytes", longest, longest},
		{"256 bytes", longest + "x", unknown},
		{"not ASCII", "text/plain; x=\u00e9", unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			const body = "{\"a\":1}\x00\xff\r\n"
			request := post(t, server, strings.NewReader(body))
			if row.contentType != "" {
				request.Header.Set("Content-Type", row.contentType)
			}
			accepted(t, request)
			m := reader.Next(t)
			if string(m.Body) != body {
				t.Errorf("body: got %q, want %q", m.Body, body)
			}
			if m.ContentType != row.want {
				t.Errorf("content_type: got %q, want %q", m.ContentType, row.want)
			}
			replayed := replay(t, m)
			if string(replayed.Body) != body {
				t.Errorf("body of the replay: got %q, want %q", replayed.Body, body)
			}
			if got := byName(replayed.Header)["Content-Type"]; strings.Join(got, "|") != row.contentType {
				t.Errorf("Content-Type of the replay: got %q, want %q", got, row.contentType)
			}
		})
	}
}

// seedQueue holds that the queue is durable and a quorum queue.
func seedQueue(t *testing.T) {
	var queue struct {
		Type       string         `json:"type"`
		Durable    bool           `json:"durable"`
		AutoDelete bool           `json:"auto_delete"`
		Exclusive  bool           `json:"exclusive"`
		Arguments  map[string]any `json:"arguments"`
	}
	if err := broker.Call(http.MethodGet, "/api/queues/%2F/"+articleQueue, nil, &queue); err != nil {
		t.Fatal(err)
	}
	if queue.Type != "quorum" || !queue.Durable || queue.AutoDelete || queue.Exclusive {
		t.Errorf("got %+v, want a durable quorum queue", queue)
	}
	if want := map[string]any{"x-queue-type": "quorum"}; !maps.Equal(queue.Arguments, want) {
		t.Errorf("arguments: got %v, want %v", queue.Arguments, want)
	}
}

// seedDefaultExchange holds that a message published to the default exchange under the queue's name arrives.
func seedDefaultExchange(t *testing.T) {
	vhost := mainHost(t)
	reader := vhost.Reader(t, articleQueue)
	ch := vhost.Channel(t, topology.Publisher)
	if err := ch.PublishWithContext(t.Context(), "", articleQueue, true, false,
		amqp.Publishing{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if m := reader.Next(t); m.Exchange != "" || m.RoutingKey != articleQueue || string(m.Body) != "x" {
		t.Errorf("got exchange %q, routing key %q, body %q", m.Exchange, m.RoutingKey, m.Body)
	}
}

// seedListQueues holds that rabbitmqctl shows the queue and how much is on it, asked as the article asks and with
// the count that needs no statistics.
func seedListQueues(t *testing.T) {
	vhost := mainHost(t)
	server := vhost.Serve(t, nil)
	for range 3 {
		accepted(t, post(t, server, nil))
	}
	for _, command := range []string{"rabbitmqctl list_queues", "rabbitmqctl list_queues name messages_ready"} {
		eventuallyListed(t, broker, command, articleQueue, "3")
	}
	reader := vhost.Reader(t, articleQueue)
	for range 3 {
		reader.Next(t)
	}
	eventuallyListed(t, broker, "rabbitmqctl list_queues name messages_ready", articleQueue, "0")
}

// eventuallyListed runs a command in the broker's container until one line of what it prints is the row, column by
// column: some counts of rabbitmqctl are those of seconds ago.
func eventuallyListed(t *testing.T, b *harness.Broker, command string, row ...string) {
	t.Helper()
	var out string
	listed := false
	defer func() {
		if !listed {
			t.Logf("%s:\n%s", command, out)
		}
	}()
	harness.Eventually(t, strings.Join(row, " ")+" in "+command, func() bool {
		var err error
		if out, err = b.Exec(strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			listed = listed || slices.Equal(strings.Fields(line), row)
		}
		if !listed {
			time.Sleep(time.Second) // each of these commands takes more than that of a processor
		}
		return listed
	})
}

// seedArticleProgram runs the article's program as the admin: its message is a request that can be replayed.
func seedArticleProgram(t *testing.T) {
	vhost := mainHost(t)
	articlePublish(t, vhost.URL(topology.Admin))

	m := vhost.Reader(t, articleQueue).Next(t)
	if len(m.Headers) > 0 {
		t.Errorf("headers: got %v, the article sends none", m.Headers)
	}
	got := replay(t, m)
	if got.Method != http.MethodPost || got.Target != "/" || string(got.Body) != articleText {
		t.Errorf("replay: got %s %s %q, want POST / %q", got.Method, got.Target, got.Body, articleText)
	}
	if v := byName(got.Header)["Content-Type"]; !slices.Equal(v, []string{"text/plain"}) {
		t.Errorf("Content-Type of the replay: got %q, want text/plain", v)
	}
}

// seedArticleConsumer is the other way round: what the server takes reaches the article's consumer.
func seedArticleConsumer(t *testing.T) {
	vhost := mainHost(t)
	server := vhost.Serve(t, nil)
	deliveries, err := vhost.Channel(t, topology.Admin).Consume(articleQueue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := accepted(t, post(t, server, nil))
	select {
	case m := <-deliveries:
		if string(m.Body) != articleText || m.ContentType != "text/plain" || m.MessageId != a.ID {
			t.Errorf("got %s %q of %s, want %s %q of text/plain", m.MessageId, m.Body, m.ContentType, a.ID, articleText)
		}
	case <-time.After(harness.Patience):
		t.Fatal("no message came")
	}
	harness.Eventually(t, "the queue to be empty", func() bool { return vhost.Count(t, articleQueue) == 0 })
}

// articlePublish is the article's program: dial, declare, publish, and no more.
func articlePublish(t *testing.T, url string) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("FallbackAPIQueue", true, false, false, false, nil); err != nil {
		t.Fatalf("declare: %v", err)
	}
	message := amqp.Publishing{ContentType: "text/plain", Body: []byte(articleText)}
	if err := ch.PublishWithContext(t.Context(), "", "FallbackAPIQueue", false, false, message); err != nil {
		t.Fatalf("publish: %v", err)
	}
	if err := ch.Close(); err != nil { // after the publish, in the same channel: the broker has it by then
		t.Fatal(err)
	}
}
