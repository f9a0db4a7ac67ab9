package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// authorization is the header of our own credentials. It is never stored; the client's Authorization belongs to the
// primary and is captured like any header.
const authorization = "Fallback-Authorization"

// keys are what lets a request in.
type keys struct {
	tokens   [][sha256.Size]byte // hashed, so that comparing tells nothing of a token's length
	webhooks []*standardwebhooks.Webhook
}

func newKeys(tokens, secrets []string) (keys, error) {
	var k keys
	for _, t := range tokens {
		k.tokens = append(k.tokens, sha256.Sum256([]byte(t)))
	}
	for i, s := range secrets {
		wh, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			return keys{}, fmt.Errorf("FALLBACK_WEBHOOK_SECRETS: number %d is not base64 (whsec_...)", i+1)
		}
		k.webhooks = append(k.webhooks, wh)
	}
	return k, nil
}

// open says that no key is needed.
func (k keys) open() bool { return len(k.tokens) == 0 && len(k.webhooks) == 0 }

func (k keys) hasToken(h http.Header) bool {
	scheme, token, _ := strings.Cut(h.Get(authorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	found := 0
	for _, t := range k.tokens {
		found |= subtle.ConstantTimeCompare(sum[:], t[:])
	}
	return found == 1
}

// maySign says whether it is worth reading the body to check a signature.
func (k keys) maySign(h http.Header) bool {
	return len(k.webhooks) > 0 && h.Get(standardwebhooks.HeaderWebhookSignature) != ""
}

// isSigned checks a Standard Webhooks signature over the very bytes of the body, its timestamp included: it is fresh
// now, and would not be any more when the request is replayed.
func (k keys) isSigned(r *envelope.Request) bool {
	for _, wh := range k.webhooks {
		if wh.Verify(r.Body, r.Header) == nil {
			return true
		}
	}
	return false
}
