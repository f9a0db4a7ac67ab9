package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/target"
)

// target tells whether the primary is alive, and whether it is the primary.
func (v *visit) target(ctx context.Context) {
	if v.config.TargetURL == "" {
		v.skip("FALLBACK_TARGET_URL is not set here: a drain would idle")
		return
	}
	base, err := url.Parse(v.config.TargetURL.Reveal())
	if err != nil {
		v.fail("for example https://api.example.com", "FALLBACK_TARGET_URL cannot be read")
		return
	}
	first, err := glance(ctx, base, v.config.ProbePath)
	var second bool
	if err == nil && first.healthy {
		root, err := glance(ctx, base, "/")
		first.ours, second = err == nil && root.ours, err == nil && root.healthy
	}
	switch {
	case err != nil && lasting(err):
		v.fail("check FALLBACK_TARGET_URL and the primary's certificate", "%s: %s", base.Host, plain(err))
		return
	case err == nil && first.ours:
		v.fail("set FALLBACK_TARGET_URL to the primary itself, around whatever fails over", "%s is answered by fallback itself: replays would be queued again", base.Host)
		return
	}
	if second {
		v.warn("right only for a second Fallback behind this one, with FALLBACK_ACCEPT_REPLAYS", "%s is answered by a door of Fallback, which lets replays in", base.Host)
		return
	}
	client, err := target.New(target.Options{URL: v.config.TargetURL.Reveal(), ProbePath: v.config.ProbePath, Timeout: v.config.TargetTimeout})
	if err != nil {
		v.fail("for example https://api.example.com", "%s", err)
		return
	}
	defer client.Close()
	start := time.Now()
	alive, verdict := client.Probe(ctx)
	took := time.Since(start).Round(time.Millisecond)
	switch {
	case !alive:
		v.warn("nothing, if it is known to be down: the drain waits for it", "%s is down: %s", base.Host, verdict.Reason)
	case first.elsewhere:
		v.warn("redirects are not followed: set FALLBACK_TARGET_URL to where it leads", "%s answers %d, and leads elsewhere", base.Host, verdict.Status)
	case base.Scheme == "http" && locate(ctx, base) == public:
		v.warn("use https://", "%s is alive (%d, in %s), and requests go there over a public network in the clear", base.Host, verdict.Status, took)
	case first.secured && time.Until(first.expires) < dueSoon:
		v.warn("renew it", "%s is alive (%d, in %s), and its certificate is valid for %d days only", base.Host, verdict.Status, took, days(time.Until(first.expires)))
	default:
		v.ok("%s is alive (%d, in %s); it is to be the API itself, around whatever fails over to this", base.Host, verdict.Status, took)
	}
}

// sight is what one answer of the primary shows beside its status.
type sight struct {
	ours      bool // it is a problem of fallback's
	healthy   bool // it is what its /livez or /readyz says, and perhaps what others do
	elsewhere bool // it leads to another host or scheme
	secured   bool
	expires   time.Time // of the certificate, if it is secured
}

// glance asks as the drain's probe does.
func glance(ctx context.Context, base *url.URL, path string) (sight, error) {
	var s sight
	probe, err := base.Parse(strings.TrimSuffix(base.EscapedPath(), "/") + "/" + strings.TrimPrefix(path, "/"))
	if err != nil {
		return s, errors.New("the probe's URL is not one")
	}
	ctx, cancel := context.WithTimeout(ctx, one/4)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, probe.String(), nil)
	if err != nil {
		return s, errors.New("the probe's URL is not one")
	}
	request.Header.Set("User-Agent", "fallback-probe")
	request.Header.Set(envelope.HeaderAttempt, "0") // a door behind a proxy shows itself by refusing it
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
	s.ours = strings.Contains(string(body), `"urn:fallback:problem:`)
	s.healthy = string(body) == `{"status":"live"}`+"\n" || string(body) == `{"status":"ready"}`+"\n"
	if answer.TLS != nil {
		s.expires, s.secured = rabbit.Expires(*answer.TLS)
	}
	if to, err := answer.Location(); err == nil && answer.StatusCode/100 == 3 {
		s.elsewhere = to.Host != probe.Host || to.Scheme != probe.Scheme
	}
	return s, nil
}

// lasting says whether an error is one that waiting does not mend.
func lasting(err error) bool {
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var dns *net.DNSError
	return errors.As(err, &certificate) || errors.As(err, &notTLS) || errors.As(err, &unknown) ||
		errors.As(err, &dns) && dns.IsNotFound
}
