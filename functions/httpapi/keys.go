package httpapi

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// Kinds of keys, as [Options].Admitted tells them.
const (
	Token   = "token"   // of FALLBACK_TOKENS
	Webhook = "webhook" // a secret of FALLBACK_WEBHOOK_SECRETS
	Replay  = "replay"  // a secret of FALLBACK_ACCEPT_REPLAYS
)

// keys are what lets a request in. The place of a key is where it stands in its list, from 1; 0 is none.
type keys struct {
	tokens   [][sha256.Size]byte // hashed, so that comparing tells nothing of a token's length
	webhooks []*standardwebhooks.Webhook
	replays  []*standardwebhooks.Webhook
}

func newKeys(tokens, webhooks, replays []string) (k keys, err error) {
	for _, t := range tokens {
		k.tokens = append(k.tokens, sha256.Sum256([]byte(t)))
	}
	if k.webhooks, err = newSecrets("FALLBACK_WEBHOOK_SECRETS", webhooks); err == nil {
		k.replays, err = newSecrets("FALLBACK_ACCEPT_REPLAYS", replays)
	}
	return k, err
}

func newSecrets(variable string, secrets []string) (found []*standardwebhooks.Webhook, err error) {
	for i, s := range secrets {
		wh, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			return nil, fmt.Errorf("%s: number %d is not base64 (whsec_...)", variable, i+1)
		}
		found = append(found, wh)
	}
	return found, nil
}

// open says that no key is needed.
func (k keys) open() bool { return len(k.tokens) == 0 && len(k.webhooks) == 0 }

// place is that of a token.
func (k keys) place(token string) (place int) {
	sum := sha256.Sum256([]byte(token))
	for i, t := range k.tokens {
		place = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], t[:]), i+1, place)
	}
	return place
}

// take finds the tokens of ours that open the door and takes them off: they are not for the primary, whatever lets the
// request in. It returns what is left of the target, and the place of the first; 0 if there is none. (What repeats a
// token without opening the door, scrub takes off when the request is let in.)
//
// A token is the bearer of Fallback-Authorization, which is always taken off; that of Authorization, for senders that
// can set nothing else; or in the path, /-/TOKEN/..., for those that can set a URL alone. What is no token of ours
// there is the primary's.
func (k keys) take(h http.Header, target string) (rest string, place int) {
	own := h[envelope.HeaderAuthorization]
	delete(h, envelope.HeaderAuthorization)
	if len(k.tokens) == 0 {
		return target, 0
	}
	for _, value := range own {
		place = cmp.Or(place, k.bearer(value))
	}
	place = cmp.Or(place, k.takeBearers(h))
	target, found := k.cut(target, 0)
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	return target, cmp.Or(place, found)
}

// takeBearers takes the tokens of ours out of Authorization, and returns the place of the first. A platform may have
// joined several values by commas.
func (k keys) takeBearers(h http.Header) (place int) {
	var kept []string
	for _, value := range h["Authorization"] {
		var others []string
		parts := strings.Split(value, ",")
		for _, part := range parts {
			if found := k.bearer(strings.TrimSpace(part)); found > 0 {
				place = cmp.Or(place, found)
			} else {
				others = append(others, part)
			}
		}
		switch {
		case len(others) == len(parts):
			kept = append(kept, value)
		case len(others) > 0:
			kept = append(kept, strings.TrimSpace(strings.Join(others, ",")))
		}
	}
	if place > 0 {
		delete(h, "Authorization")
		if kept != nil {
			h["Authorization"] = kept
		}
	}
	return place
}

// bearer is the place of the token in the value of an Authorization field.
func (k keys) bearer(value string) int {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return 0
	}
	return k.place(strings.TrimSpace(token))
}

const (
	pathMark = "/-/"
	// fieldEnds are what ends a path in a field that holds more than a path.
	fieldEnds = "/?#,;&|()<>'\" "
)

// cut takes the tokens off a path at position at, and returns the place of the first. They end with their segment, or,
// where the path stands in something else, with what ends it there.
func (k keys) cut(path string, at int) (rest string, place int) {
	for strings.HasPrefix(path[at:], pathMark) {
		found, end := 0, 0
		for _, ends := range []string{"/?#", fieldEnds} {
			if found == 0 {
				found, end = k.placeIn(path, at+len(pathMark), ends)
			}
		}
		if found == 0 {
			return path, place
		}
		place = cmp.Or(place, found)
		path = path[:at] + path[end:]
	}
	return path, place
}

// placeIn is the place of the token that begins there and goes on until one of ends, and where that is.
func (k keys) placeIn(s string, begin int, ends string) (place, end int) {
	end = len(s)
	if i := strings.IndexAny(s[begin:], ends); i >= 0 {
		end = begin + i
	}
	token, err := url.PathUnescape(s[begin:end])
	if err != nil {
		return 0, end
	}
	return k.place(token), end
}

// scrub takes path tokens out of all that may repeat a path: the target itself, and proxies' and clients' fields, such
// as X-Forwarded-Prefix, X-Original-Url and Referer; and bearers out of the trailer.
func (k keys) scrub(r *envelope.Request) {
	if len(k.tokens) == 0 {
		return
	}
	r.Target = k.scrubbed(r.Target)
	k.takeBearers(r.Trailer)
	for _, fields := range []http.Header{r.Header, r.Trailer} {
		for _, values := range fields {
			for i, value := range values {
				values[i] = k.scrubbed(value)
			}
		}
	}
}

// scrubbed takes path tokens out of a value, those in an escaped URL too.
func (k keys) scrubbed(value string) string {
	value = k.scrubbedAt(value, pathMark, k.cut)
	for _, mark := range []string{"%2F-%2F", "%2f-%2f"} {
		value = k.scrubbedAt(value, mark, func(s string, at int) (string, int) {
			place, end := k.placeIn(s, at+len(mark), "%"+fieldEnds)
			if place == 0 {
				return s, 0
			}
			return s[:at] + s[end:], place
		})
	}
	return value
}

func (k keys) scrubbedAt(value, mark string, cut func(string, int) (string, int)) string {
	for from := 0; ; {
		next := strings.Index(value[from:], mark)
		if next < 0 {
			return value
		}
		at := from + next
		rest, place := cut(value, at)
		if from = at + 1; place > 0 {
			value, from = rest, max(0, at-len(mark)) // what was before and behind may be a mark now
		}
	}
}

// webhookNames are the names that a signature of Standard Webhooks comes under: the standard's, and those of Svix, who
// began it, and of those who send through it. A signature has all three of a row.
var webhookNames = [][3]string{
	{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"},
	{"Svix-Id", "Svix-Timestamp", "Svix-Signature"},
}

// freshness is how far from now a webhook may have been signed, as the libraries of Standard Webhooks have it.
const freshness = 5 * time.Minute

// signatures are those that a request bears and that may be right: no body is read for the sake of any other.
func (k keys) signatures(h http.Header) (found []http.Header) {
	if len(k.webhooks) == 0 {
		return nil
	}
	for _, names := range webhookNames {
		id, timestamp, signature := h[names[0]], h[names[1]], h[names[2]]
		if len(id) != 1 || len(timestamp) != 1 || len(signature) != 1 || !isSignature(id[0], signature[0]) {
			continue
		}
		seconds, err := strconv.ParseInt(timestamp[0], 10, 64)
		if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > freshness {
			continue
		}
		found = append(found, signedHeader(id[0], timestamp[0], signature[0]))
	}
	return found
}

// signer is the place of the secret with which the body was signed. It is checked on arrival, over the very bytes: the
// timestamp is fresh now, and would not be any more when the request is replayed.
func signer(secrets []*standardwebhooks.Webhook, signatures []http.Header, body []byte) int {
	for i, wh := range secrets {
		for _, signature := range signatures {
			if wh.VerifyIgnoringTimestamp(body, signature) == nil {
				return i + 1
			}
		}
	}
	return 0
}
