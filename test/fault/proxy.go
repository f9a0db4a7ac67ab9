package fault

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// mode is what the proxy does with the bytes of every connection, those that are there and new ones.
type mode int

const (
	passing mode = iota
	// blackHole forwards nothing, in neither direction: bytes and closes wait, as what TCP sends again does.
	blackHole
	// slow is delay each way.
	slow
	// sliced writes each byte by itself.
	sliced
)

// delay is for one way in mode slow: a round trip takes 300 ms longer.
const delay = 150 * time.Millisecond

// proxy stands between the server and the broker.
type proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup // every goroutine

	mu       sync.Mutex // guards what follows
	mode     mode
	changed  chan struct{} // closed when mode changes, and replaced
	links    map[*link]struct{}
	accepted int
	closed   bool

	disturbed atomic.Int64 // writes that were delayed, or cut into slices
}

// startProxy listens on a free port of loopback and connects each connection to target.
func startProxy(target string) (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: ln, target: target, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.work.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// set changes the mode.
func (p *proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
}

// connections is how many there were so far.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// live are the connections that there are.
func (p *proxy) live() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var links []*link
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// reset ends every connection with a TCP reset at both ends. What is under way in the proxy is lost.
func (p *proxy) reset() {
	for _, l := range p.live() {
		l.reset()
	}
}

// swallow throws away what the broker says on the connections that there are; new ones work.
func (p *proxy) swallow() {
	for _, l := range p.live() {
		l.set(func() { l.swallowing = true })
	}
}

// forget ends the broker's side of the connections that there are. The server is not told: what it writes is taken and
// thrown away. New ones work.
func (p *proxy) forget() {
	for _, l := range p.live() {
		l.set(func() {
			l.forgotten = true
			l.far.Close()
		})
	}
}

// close ends everything and waits for it.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.reset()
	p.set(passing)
	p.work.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &link{proxy: p, near: near.(*net.TCPConn), ended: make(chan struct{})}
		p.mu.Lock()
		p.accepted++
		p.links[l] = struct{}{}
		closed := p.closed
		p.mu.Unlock()
		if closed {
			near.Close()
			return
		}
		p.work.Go(l.run)
	}
}

// link is one connection through the proxy.
type link struct {
	proxy *proxy
	near  *net.TCPConn  // the server's side
	ended chan struct{} // closed by reset
	once  sync.Once

	mu         sync.Mutex // guards what follows
	far        net.Conn   // the broker's side
	swallowing bool
	forgotten  bool
}

// set changes a link that has both of its sides. One that is still dialling is a new one.
func (l *link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.far != nil {
		change()
	}
}

func (l *link) reset() {
	l.once.Do(func() { close(l.ended) })
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.near.SetLinger(0)
	l.near.Close()
	if far, ok := l.far.(*net.TCPConn); ok {
		_ = far.SetLinger(0)
		far.Close()
	}
}

func (l *link) run() {
	defer func() {
		l.near.Close()
		l.proxy.mu.Lock()
		delete(l.proxy.links, l)
		l.proxy.mu.Unlock()
	}()
	if _, ok := l.gate(); !ok {
		return
	}
	far, err := net.DialTimeout("tcp", l.proxy.target, 5*time.Second)
	if err != nil {
		_ = l.near.SetLinger(0)
		return
	}
	defer far.Close()
	l.mu.Lock()
	l.far = far
	l.mu.Unlock()
	select {
	case <-l.ended:
		return
	default:
	}
	var flows sync.WaitGroup
	flows.Go(func() { newFlow(l, far, l.near, false).run() })
	flows.Go(func() { newFlow(l, l.near, far, true).run() })
	flows.Wait()
}

// gate waits while nothing is forwarded, and says what to do then; false when the link was reset.
func (l *link) gate() (mode, bool) {
	for {
		l.proxy.mu.Lock()
		m, changed := l.proxy.mode, l.proxy.changed
		l.proxy.mu.Unlock()
		if m != blackHole {
			return m, true
		}
		select {
		case <-changed:
		case <-l.ended:
			return m, false
		}
	}
}

// drops says whether bytes of this direction go nowhere.
func (l *link) drops(down bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.forgotten || l.swallowing && down
}

// deaf says whether the near side is not to hear that the far one has ended.
func (l *link) deaf() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.forgotten
}

// flow is one direction of a link.
type flow struct {
	*link
	to, from net.Conn
	down     bool // from the broker to the server

	delayed chan chunk     // what is on its way in mode slow
	transit sync.WaitGroup // counts delayed
}

type chunk struct {
	due   time.Time
	bytes []byte
}

func newFlow(l *link, to, from net.Conn, down bool) *flow {
	return &flow{link: l, to: to, from: from, down: down, delayed: make(chan chunk, 4096)}
}

func (f *flow) run() {
	var work sync.WaitGroup
	work.Go(f.deliver)
	err := f.read()
	f.transit.Wait()
	close(f.delayed)
	work.Wait()
	if _, open := f.gate(); !open || f.deaf() {
		return
	}
	switch to := f.to.(*net.TCPConn); {
	case errors.Is(err, io.EOF):
		_ = to.CloseWrite()
	default:
		f.reset()
	}
}

// read forwards until the end of one side.
func (f *flow) read() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.from.Read(buf)
		if n > 0 {
			if err := f.forward(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

func (f *flow) forward(p []byte) error {
	m, open := f.gate()
	if !open {
		return net.ErrClosed
	}
	if m == slow {
		f.proxy.disturbed.Add(1)
		f.transit.Add(1)
		f.delayed <- chunk{time.Now().Add(delay), append([]byte(nil), p...)}
		return nil
	}
	f.transit.Wait() // what is on its way goes first
	return f.write(p, m)
}

func (f *flow) write(p []byte, m mode) error {
	if f.drops(f.down) {
		return nil
	}
	step := len(p)
	if m == sliced {
		step = 1
		f.proxy.disturbed.Add(1)
	}
	for len(p) > 0 {
		if _, err := f.to.Write(p[:step]); err != nil {
			if f.deaf() {
				return nil // forgotten meanwhile
			}
			return err
		}
		p = p[step:]
	}
	return nil
}

// deliver writes what was delayed when it is due.
func (f *flow) deliver() {
	for c := range f.delayed {
		time.Sleep(time.Until(c.due))
		if m, open := f.gate(); open {
			if f.write(c.bytes, m) != nil {
				f.reset()
			}
		}
		f.transit.Done()
	}
}
