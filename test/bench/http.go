package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// connection sends the same request over and over and wants the same status. It speaks HTTP with as little work as can
// be, because it is done on the cores of what is measured.
type connection struct {
	addr    string
	request []byte
	want    int

	conn net.Conn // nil: to be dialled
	in   *bufio.Reader
}

// httpOperations are n connections that send a POST. One that breaks, or that the server closes, is dialled anew.
func httpOperations(n int, addr, path string, header string, body []byte, want int) (operations []operation,
	closeAll func(), err error) {
	request := post(addr, path, header, body)
	var all []*connection
	closeAll = func() {
		for _, c := range all {
			c.close()
		}
	}
	for range n {
		c := &connection{addr: addr, request: request, want: want}
		if err := c.dial(); err != nil {
			closeAll()
			return nil, nil, err
		}
		all, operations = append(all, c), append(operations, c.do)
	}
	return operations, closeAll, nil
}

// post is a request as it stands on the wire.
func post(addr, path, header string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n%sContent-Type: "+
		"application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, addr, header, len(body), body)
}

func (c *connection) dial() error {
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		return err
	}
	c.conn, c.in = conn, bufio.NewReaderSize(conn, 2048)
	return nil
}

func (c *connection) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// do sends the request and reads its answer.
func (c *connection) do() error {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return err
		}
	}
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(c.request)
	if err != nil {
		c.close()
		return err
	}
	a, err := readAnswer(c.in)
	if err != nil || a.last {
		c.close()
	}
	if err == nil && a.status != c.want {
		err = fmt.Errorf("answer is %d, want %d", a.status, c.want)
	}
	return err
}

// answer is what matters of one.
type answer struct {
	status int
	last   bool // of its connection
}

// readAnswer reads one answer with a Content-Length.
func readAnswer(in *bufio.Reader) (answer, error) {
	var a answer
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		if len(line) <= 2 {
			break
		}
		if a.status == 0 {
			if len(line) < 12 {
				return a, fmt.Errorf("answer begins with %q", line)
			}
			a.status, _ = strconv.Atoi(string(line[9:12]))
			continue
		}
		if v, ok := field(line, "Content-Length:"); ok {
			if length, err = strconv.Atoi(v); err != nil {
				return a, fmt.Errorf("answer %d: %w", a.status, err)
			}
		} else if v, ok := field(line, "Connection:"); ok {
			a.last = strings.EqualFold(v, "close")
		}
	}
	if length < 0 {
		return a, fmt.Errorf("answer %d without Content-Length", a.status)
	}
	_, err := in.Discard(length)
	return a, err
}

// field is the line's value if it has that name.
func field(line []byte, name string) (string, bool) {
	if len(line) < len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return "", false
	}
	return strings.TrimSpace(string(line[len(name):])), true
}
