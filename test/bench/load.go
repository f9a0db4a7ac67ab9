package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// operation does one request and returns when its outcome is known. There is one for each that may be in flight.
type operation func() error

// sample is what one cell measured.
type sample struct {
	Requests   int     `json:"requests"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	CPUMicros  float64 `json:"server_cpu_us"` // of the server's process, a request; 0 where there is no server
	PeakMemory float64 `json:"peak_rss_mb"`   // of the server's process
}

// closedLoop runs every operation over and over for the time: as many are in flight as there are operations.
func closedLoop(operations []operation, d time.Duration) (sample, error) {
	return measure(operations, func(start time.Time, _ int, do func(since time.Time) error) error {
		for time.Since(start) < d {
			if err := do(time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// openLoop offers requests at a fixed rate for the time, whatever their answers do, and measures each from the moment
// it was due: a server that stalls is not spared the requests that would have come meanwhile.
func openLoop(operations []operation, perSecond float64, d time.Duration) (sample, error) {
	due := make(chan time.Time, len(operations)*16)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	go func() {
		defer close(due)
		start, sent := time.Now(), 0
		for ctx.Err() == nil {
			for want := int(time.Since(start).Seconds() * perSecond); sent < want; sent++ {
				due <- start.Add(time.Duration(float64(sent) / perSecond * float64(time.Second)))
			}
			time.Sleep(500 * time.Microsecond)
		}
	}()
	return measure(operations, func(_ time.Time, _ int, do func(time.Time) error) error {
		for at := range due {
			if err := do(at); err != nil {
				return err
			}
		}
		return nil
	})
}

// measure runs work once for each operation, side by side, and sums up what their do calls took.
func measure(operations []operation, work func(start time.Time, i int, do func(since time.Time) error) error) (sample, error) {
	latencies := make([][]time.Duration, len(operations))
	errs := make([]error, len(operations))
	start := time.Now()
	var wg sync.WaitGroup
	for i, operation := range operations {
		wg.Go(func() {
			errs[i] = work(start, i, func(since time.Time) error {
				err := operation()
				latencies[i] = append(latencies[i], time.Since(since))
				return err
			})
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	for _, err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	if len(all) == 0 {
		return sample{}, fmt.Errorf("no request was answered in %.1f s", elapsed)
	}
	return sample{
		Requests: len(all), Seconds: elapsed, PerSecond: float64(len(all)) / elapsed,
		P50: ms(all[len(all)/2]), P99: ms(all[len(all)*99/100]),
	}, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// httpOperations are connections that send the same request over and over and want the given status. They speak HTTP
// with as little work as can be, because it is done on the cores of what is measured.
func httpOperations(n int, addr, path string, header string, body []byte, want int) (operations []operation, closeAll func(), err error) {
	request := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, addr, header, len(body), body))
	var conns []net.Conn
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, conn)
		in := bufio.NewReaderSize(conn, 2048)
		operations = append(operations, func() error {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			return readAnswer(in, want)
		})
	}
	return operations, closeAll, nil
}

// readAnswer reads one answer with a Content-Length.
func readAnswer(in *bufio.Reader, want int) error {
	status, length := 0, -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case status == 0:
			if len(line) < 12 {
				return fmt.Errorf("answer begins with %q", line)
			}
			status, _ = strconv.Atoi(string(line[9:12]))
		case len(line) > 16 && strings.EqualFold(string(line[:15]), "Content-Length:"):
			length, _ = strconv.Atoi(strings.TrimSpace(string(line[15:])))
		}
		if len(line) == 2 {
			break
		}
	}
	if length < 0 {
		return fmt.Errorf("answer %d without Content-Length", status)
	}
	if _, err := in.Discard(length); err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("answer is %d, want %d", status, want)
	}
	return nil
}
