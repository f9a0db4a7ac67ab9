package doctor

import (
	"context"
	"errors"
	"net"
	"net/url"
	"time"
)

// scope is how far away a host is: who could listen in between, and who could knock.
type scope int

const (
	public   scope = iota // or not known
	private               // a network of one's own, a container's among them
	loopback              // this host
)

func (s scope) String() string { return [...]string{"public", "private", "loopback"}[s] }

// scopeOf is the farthest of the addresses.
func scopeOf(addresses []net.IP) scope {
	farthest := loopback
	for _, ip := range addresses {
		switch {
		case ip.IsLoopback():
		case ip.IsPrivate(), ip.IsLinkLocalUnicast():
			farthest = min(farthest, private)
		default:
			return public
		}
	}
	if len(addresses) == 0 {
		return public
	}
	return farthest
}

// resolve is the host's addresses.
func resolve(ctx context.Context, host string) ([]net.IP, error) {
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, errors.New(plain(err))
	}
	ips := make([]net.IP, len(addresses))
	for i, a := range addresses {
		ips[i] = a.IP
	}
	return ips, nil
}

// locate is the scope of a URL's host.
func locate(ctx context.Context, u *url.URL) scope {
	ips, err := resolve(ctx, u.Hostname())
	if err != nil {
		return public
	}
	return scopeOf(ips)
}

// plain is an error of the network without what a reader has seen already: URLs, which may hold a password, and
// addresses.
func plain(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name is not found"
	case errors.As(err, &dns):
		return "the name server does not answer"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &op) && op.Timeout():
		return "no answer in time"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// dueSoon is how long before its end a certificate should be renewed.
const dueSoon = 14 * 24 * time.Hour

// days are whole ones.
func days(d time.Duration) int { return int(d / (24 * time.Hour)) }
