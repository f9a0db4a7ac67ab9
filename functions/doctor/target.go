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
	"fallback/functions/httpapi"
	"fallback/functions/problem"
	"fallback/functions/rabbit"
	"fallback/functions/target"
)

// targetSurvey is what the primary answers.
type targetSurvey struct {
	url     *url.URL // nil when it is not set
	scope   scope
	first   sight // of the probe's path
	root    sight // of /, where the first looks like a door's
	err     error // there was no first answer
	unfit   error // nothing can be sent there
	alive   bool  // by the drain's own probe, where that was asked
	verdict target.Verdict
	took    time.Duration
}

// isSelf says that what answers is fallback itself, and isOtherDoor that it is another's door, which lets replays in.
func (t targetSurvey) isSelf() bool      { return t.first.ours || t.root.ours }
func (t targetSurvey) isOtherDoor() bool { return t.root.healthy }

// askTarget asks whether the primary is alive, and whether it is the primary.
func (s *survey) askTarget(ctx context.Context) {
	if s.config.TargetURL == "" {
		return
	}
	t := &s.target
	t.url, _ = url.Parse(s.config.TargetURL.Reveal()) // the settings have been looked at
	t.scope = locate(ctx, t.url)
	if t.first, t.err = glance(ctx, t.url, s.config.ProbePath); t.err == nil && t.first.healthy {
		t.root, _ = glance(ctx, t.url, "/")
	}
	if t.err != nil && lasting(t.err) || t.isSelf() || t.isOtherDoor() {
		return
	}
	client, err := target.New(target.Options{
		URL: s.config.TargetURL.Reveal(), ProbePath: s.config.ProbePath, Timeout: s.config.TargetTimeout,
	})
	if t.unfit = err; err != nil {
		return
	}
	defer client.Close()
	begin := time.Now()
	t.alive, t.verdict = client.Probe(ctx)
	t.took = time.Since(begin).Round(time.Millisecond)
}

func (s *survey) concludeTarget() []Finding {
	t := s.target
	if t.url == nil {
		return []Finding{skip("FALLBACK_TARGET_URL is not set here: a drain would idle")}
	}
	host, status := t.url.Host, t.verdict.Status
	switch {
	case t.err != nil && lasting(t.err):
		return []Finding{fail("check FALLBACK_TARGET_URL and the primary's certificate", "%s: %s", host, plain(t.err))}
	case t.isSelf():
		return []Finding{fail("set FALLBACK_TARGET_URL to the primary itself, around whatever fails over",
			"%s is answered by fallback itself: replays would be queued again", host)}
	case t.isOtherDoor():
		return []Finding{warn("right only for a second Fallback behind this one, with FALLBACK_ACCEPT_REPLAYS",
			"%s is answered by a door of Fallback, which lets replays in", host)}
	case t.unfit != nil:
		return []Finding{fail("for example https://api.example.com", "%s", t.unfit)}
	case !t.alive:
		return []Finding{warn("nothing, if it is known to be down: the drain waits for it", "%s is down: %s", host,
			t.verdict.Reason)}
	case t.first.elsewhere:
		return []Finding{warn("redirects are not followed: set FALLBACK_TARGET_URL to where it leads",
			"%s answers %d, and leads elsewhere", host, status)}
	case t.url.Scheme == "http" && t.scope == public:
		return []Finding{warn("use https://", "%s is alive (%d, in %s), and requests go there over a public network "+
			"in the clear", host, status, t.took)}
	case t.first.secured && time.Until(t.first.expires) < dueSoon:
		return []Finding{warn("renew it", "%s is alive (%d, in %s), and its certificate is valid for %d days only",
			host, status, t.took, days(time.Until(t.first.expires)))}
	}
	return []Finding{good("%s is alive (%d, in %s); it is to be the API itself, around whatever fails over to this",
		host, status, t.took)}
}

// sight is what one answer of the primary shows beside its status.
type sight struct {
	ours      bool // it is a problem of fallback's
	healthy   bool // the body is that of our /livez or /readyz
	elsewhere bool // it leads to another host or scheme
	secured   bool
	expires   time.Time // of the certificate, if it is secured
}

// glance asks as the drain's probe does.
func glance(ctx context.Context, base *url.URL, path string) (sight, error) {
	var s sight
	probe, err := target.ProbeURL(base, path)
	if err != nil {
		return s, errors.New("the probe's URL is not one")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime/4)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, probe.String(), nil)
	if err != nil {
		return s, errors.New("the probe's URL is not one")
	}
	request.Header.Set("User-Agent", envelope.ProbeUserAgent)
	request.Header.Set(envelope.HeaderAttempt, "0") // a door behind a proxy shows itself by refusing it
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
	s.ours = strings.Contains(string(body), `"`+problem.Prefix)
	s.healthy = httpapi.IsHealth(body)
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
