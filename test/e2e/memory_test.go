//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"fallback/test/harness"
)

// container is one of the bundle's services while strangers send to it.
type container struct{ id, addr string }

// container finds a service's, at its own address: the process that published ports go through has limits of its own.
func (b *bundle) container(service, port string) container {
	b.t.Helper()
	id := strings.TrimSpace(b.must("ps", "--quiet", service))
	ip, err := harness.Run(harness.Patience, "docker", "inspect", "--format",
		"{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id)
	if err != nil {
		b.t.Fatal(err)
	}
	return container{id, net.JoinHostPort(strings.TrimSpace(ip), port)}
}

// lives fails the test when the container was killed, or came back after it was.
func (c container) lives(t *testing.T, since string) {
	t.Helper()
	if now := c.state(t); now != since {
		t.Errorf("it was killed: %q, and was %q", now, since)
	}
}

// state changes with each end of the container's process, whatever starts it anew.
func (c container) state(t *testing.T) string {
	t.Helper()
	out, err := harness.Run(harness.Patience, "docker", "inspect", "--format",
		"{{.State.Status}}, out of memory {{.State.OOMKilled}}, started at {{.State.StartedAt}}, restarted "+
			"{{.RestartCount}} times", c.id)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// process is where the system tells of the container's process; where it cannot be seen from here, nothing is there.
func (c container) process(t *testing.T) (dir string) {
	t.Helper()
	pid, err := harness.Run(harness.Patience, "docker", "inspect", "--format", "{{.State.Pid}}", c.id)
	if err != nil {
		t.Fatal(err)
	}
	return "/proc/" + strings.TrimSpace(pid)
}

// peak is the most memory that the process had resident since forgetPeak, in MiB.
func (c container) peak(t *testing.T) (mib int) {
	status, _ := os.ReadFile(c.process(t) + "/status")
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(rest, &mib)
	return mib >> 10
}

func (c container) forgetPeak(t *testing.T) {
	_ = os.WriteFile(c.process(t)+"/clear_refs", []byte("5"), 0)
}

// bodies is how many bytes of bodies it has in hand; 0 for a worker, and when it does not say.
func (c container) bodies(t *testing.T) (bytes int) {
	response, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + c.addr + "/metrics")
	if err != nil {
		t.Logf("no metrics: %v", err)
		return 0
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	_, rest, _ := strings.Cut(string(body), "\nfallback_bytes_in_hand ")
	var float float64
	_, _ = fmt.Sscan(rest, &float)
	return int(float)
}

// strangers are connections to a container, and what each of them sends.
type strangers struct {
	to   container
	open sync.WaitGroup
	mu   sync.Mutex // guards all
	all  []net.Conn
}

// pace is how the connections follow one another.
type pace bool

const (
	together pace = false // what becomes of it is not asked: they may be turned away at any byte
	inTurn   pace = true  // each sends when the one before has its answer
)

// send has n connections send the text, and stay.
func (s *strangers) send(t *testing.T, n int, text string, pace pace) {
	t.Helper()
	for range n {
		conn, err := net.DialTimeout("tcp", s.to.addr, harness.Patience)
		if err != nil {
			t.Logf("one of the connections failed: %v", err)
			return
		}
		s.mu.Lock()
		s.all = append(s.all, conn)
		s.mu.Unlock()
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		if pace == inTurn {
			_, _ = io.WriteString(conn, text)
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Errorf("one of the connections had no answer: %v", err)
				return
			}
		}
		s.open.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		if pace == together {
			s.open.Go(func() { _, _ = io.WriteString(conn, text) })
		}
	}
}

// leave closes them all.
func (s *strangers) leave() {
	s.mu.Lock()
	for _, conn := range s.all {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.open.Wait()
}

const tinyHead = "POST /fallback HTTP/1.1\r\nHost: h\r\n"

// TestMemory holds that no stranger kills the server's or the worker's container, with the memory that
// docker-compose.yml gives them: not by heads, by idle connections, by bodies that wait for a broker that says
// nothing, nor by all of that at the same time.
func TestMemory(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const mostBody = 16 << 20
	b.env = append(b.env, fmt.Sprintf("FALLBACK_MAX_BODY_BYTES=%d", mostBody))
	b.forgetAtEnd()
	b.must("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build")
	server, worker := b.container("server", "8080"), b.container("drain", "8081")

	const live = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"
	const body = tinyHead + "Content-Length: 16777216\r\n\r\n"
	full := body + strings.Repeat("b", mostBody)
	chunked := tinyHead + "Transfer-Encoding: chunked\r\n\r\n1000000\r\n" + strings.Repeat("c", mostBody) +
		"\r\n0\r\n\r\n"
	waiting := func(fields string) string { return tinyHead + fields + "Content-Length: 1\r\n\r\n" } // for its body
	mostFields := tinyFields(500 * 5)
	// six times as long in JSON
	escapes := tinyHead + "X: " + strings.Repeat("\t\"", 5000) + "x\r\nContent-Length: 1\r\n\r\nb"
	line := "POST /fallback/" + strings.Repeat("%41", 80_000) + " HTTP/1.1\r\nHost: h\r\n"

	asked := func(bytes int) string {
		return "GET /livez?" + strings.Repeat("a", bytes) + " HTTP/1.1\r\nHost: h\r\n\r\n"
	}

	type load struct {
		connections int
		text        string
		pace        pace
	}
	for _, row := range []struct {
		name   string
		to     container
		paused bool
		waves  int
		loads  []load
	}{
		{"idle ones", server, false, 1, []load{{6000, live, together}}},
		{"60 heads of 255 KB without an end", server, false, 1, []load{{60, tinyHead + tinyFields(255_000), together}}},
		{"2,000 heads of 8 KB without an end", server, false, 1, []load{{2000, tinyHead + tinyFields(8000), together}}},
		{"1,000 heads of 500 fields that wait for their body", server, false, 1,
			[]load{{1000, waiting(mostFields), together}}},
		{"1,000 pipelined heads", server, false, 1,
			[]load{{1000, waiting("") + "b" + waiting(tinyFields(3900)) + "b" + waiting(tinyFields(3900)), together}}},
		{"1,000 trailers, and the broker says nothing", server, true, 1,
			[]load{{1000, tinyHead + "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n" + tinyFields(4000) + "\r\n",
				together}}},
		{"1,000 request lines of 240 KB", server, false, 1,
			[]load{{1000, line, together}, {1000, line + "\r\n", together}}},
		{"1,500 that idle behind request lines of 240 KB", server, false, 1, []load{{1500, asked(240_000), inTurn}}},
		{"250 at the worker that idle behind request lines of 60 KB", worker, false, 1,
			[]load{{250, asked(60_000), inTurn}}},
		{"1,000 heads of 200 KB of values", server, false, 1,
			[]load{{1000, tinyHead + strings.Repeat("X: "+strings.Repeat("v", 1000)+"\r\n", 200), together}}},
		{"heads that grow in JSON, and the broker says nothing", server, true, 1, []load{{1000, escapes, together}}},
		{"10 heads of 1 MB at the worker", worker, false, 1,
			[]load{{10, strings.Replace(tinyHead, "POST /fallback", "GET /livez", 1) + tinyFields(1_000_000), together}}},
		{"2,000 heads at the worker", worker, false, 1,
			[]load{{2000, strings.Replace(tinyHead, "POST /fallback", "GET /livez", 1) + tinyFields(8000), together}}},
		{"3,900 idle ones and four bodies of 16 MiB", server, true, 1,
			[]load{{3900, live, together}, {4, full, together}}},
		{"3,900 idle ones and four chunked bodies of 16 MiB", server, true, 1,
			[]load{{3900, live, together}, {4, chunked, together}}},
		{
			"all at once", server, true, 4, []load{
				{3000, live, together}, {4, full, together}, {4, chunked, together},
				{300, waiting(mostFields), together}, {300, tinyHead + tinyFields(8000), together},
				{100, line, together},
				{60, tinyHead + tinyFields(255_000), together}, {300, escapes, together},
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := row.to.state(t)
			row.to.forgetPeak(t)
			bodies := 0
			if row.paused {
				if err := harness.Pause(strings.TrimSpace(b.must("ps", "-q", "rabbitmq"))); err != nil {
					t.Fatal(err)
				}
			}
			for range row.waves {
				s := &strangers{to: row.to}
				for i, l := range row.loads {
					if i == 1 {
						time.Sleep(1100 * time.Millisecond) // who is idle for a second makes room for others
					}
					s.send(t, l.connections, l.text, l.pace)
				}
				for range 6 { // three seconds, in which nothing that is in hand has to be given up
					time.Sleep(500 * time.Millisecond)
					bodies = max(bodies, row.to.bodies(t))
				}
				s.leave()
			}
			t.Logf("at most %d MiB resident, with %d MiB of bodies", row.to.peak(t), bodies>>20)
			if strings.Contains(row.name, "bodies") && bodies < 2*mostBody || strings.Contains(row.name, "all") &&
				bodies < mostBody {
				t.Error("the bodies have not been in hand: this has shown nothing")
			}
			if row.paused {
				b.must("unpause", "rabbitmq")
			}
			row.to.lives(t, before)
			serves(t, row.to)
		})
	}
}

// serves waits until the container does what it is for.
func serves(t *testing.T, c container) {
	t.Helper()
	harness.Eventually(t, "an answer", func() bool {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			return false
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err == nil && response.StatusCode == http.StatusOK
	})
}
