package deploy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// sentinel is the line that ends the logs of one invocation, on stdout and on stderr. DigitalOcean's proxy, unlike
// Apache's, leaves it to the function to print it.
const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// output is what a process has written so far: lines on fd 3, and sentinels and logs on stdout and stderr.
type output struct {
	changed chan struct{} // holds a token after a change
	drained chan struct{} // closed when all three are at their end
	files   []*os.File

	mu             sync.Mutex // guards what follows
	lines          [][]byte   // on fd 3, not yet taken
	stdout, stderr int        // sentinels
}

// readOutput reads the three until their ends, and closes them.
func readOutput(stdout, stderr, fd3 *os.File, log *logbook) *output {
	o := &output{
		changed: make(chan struct{}, 1),
		drained: make(chan struct{}),
		files:   []*os.File{stdout, stderr, fd3},
	}
	var readers sync.WaitGroup
	readers.Go(func() { o.each(stdout, o.logLine(log, &o.stdout)) })
	readers.Go(func() { o.each(stderr, o.logLine(log, &o.stderr)) })
	readers.Go(func() { o.each(fd3, func(line []byte) { o.lines = append(o.lines, line) }) })
	go func() {
		readers.Wait()
		o.cut()
		close(o.drained)
	}()
	return o
}

// each hands over each line under the lock.
func (o *output) each(r io.Reader, add func(line []byte)) {
	eachLine(r, func(line []byte) {
		o.mu.Lock()
		add(line)
		o.mu.Unlock()
		o.notify()
	})
}

// eachLine hands over each line, without its end, until there is no more. A last line without an end counts as a line.
func eachLine(r io.Reader, add func(line []byte)) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			add(bytes.TrimSuffix(line, []byte("\n")))
		}
		if err != nil {
			return
		}
	}
}

func (o *output) notify() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func (o *output) logLine(log *logbook, sentinels *int) func(line []byte) {
	return func(line []byte) {
		if string(line) == sentinel {
			*sentinels++
			return
		}
		log.add(line)
	}
}

// cut closes the reading ends, which also ends a reader that still waits.
func (o *output) cut() {
	for _, file := range o.files {
		file.Close()
	}
}

// take returns the oldest line of fd 3, or nil.
func (o *output) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 {
		return nil
	}
	line := o.lines[0]
	o.lines = o.lines[1:]
	return line
}

// missing names a stream with fewer than want sentinels, or nothing.
func (o *output) missing(want int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stdout < want:
		return "stdout"
	case o.stderr < want:
		return "stderr"
	}
	return ""
}

// excess finds lines that nobody asked for, and more than want sentinels.
func (o *output) excess(want int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.lines) > 0:
		return fmt.Errorf("%w: fd 3 has %.100q beside the answer", ErrProtocol, o.lines[0])
	case o.stdout > want:
		return fmt.Errorf("%w: %d sentinels on stdout after %d invocations", ErrProtocol, o.stdout, want)
	case o.stderr > want:
		return fmt.Errorf("%w: %d sentinels on stderr after %d invocations", ErrProtocol, o.stderr, want)
	}
	return nil
}

// logbook keeps the lines of stdout and stderr in the order they came, across processes.
type logbook struct {
	copy io.Writer // may be nil

	mu   sync.Mutex // guards text, and the use of copy
	text bytes.Buffer
}

func (l *logbook) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(line)
	l.text.WriteByte('\n')
	if l.copy != nil {
		l.copy.Write(append(line, '\n'))
	}
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// tail is the last n bytes at most.
func (l *logbook) tail(n int) string {
	text := l.String()
	return text[max(0, len(text)-n):]
}
