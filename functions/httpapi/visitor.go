package httpapi

import (
	"net/http"

	"fallback/functions/envelope"
	"fallback/functions/problem"
)

// visitor is who sends a request, as far as it is known.
type visitor struct {
	is         standing
	signatures []http.Header // of a webhook that is unproved
	replay     *replay       // of one that is a replay
	key        string        // that has let it in: Token, Webhook or Replay
	place      int           // where that stands in its list; 0 at an open door
}

type standing int

const (
	stranger standing = iota // has nothing that lets it in
	unproved                 // has a signature, which is to be checked with the body
	admitted
)

// examine takes our tokens off a request and says who sends it.
func (d *Door) examine(h http.Header, target string, replay *replay) (rest string, v visitor) {
	rest, place := d.keys.take(h, target)
	switch {
	case replay != nil:
		return rest, visitor{is: unproved, replay: replay}
	case place > 0:
		return rest, visitor{is: admitted, key: Token, place: place}
	case d.keys.open():
		return rest, visitor{is: admitted}
	}
	if signatures := d.keys.signatures(h); len(signatures) > 0 {
		return rest, visitor{is: unproved, signatures: signatures}
	}
	return rest, visitor{}
}

// admit decides whether a visitor is let in: by its key, and then by the rate, of which it takes one. body is what an
// unproved visitor has signed.
func (d *Door) admit(v *visitor, body []byte) (refused *problem.Problem) {
	if v.is == unproved {
		refused = d.prove(v, body)
	}
	switch {
	case refused != nil:
		return refused
	case v.is != admitted:
		return &unauthorized
	case d.limiter != nil && !d.limiter.Allow():
		return &rateLimited
	}
	return nil
}

// prove checks the signature of a visitor over the body.
func (d *Door) prove(v *visitor, body []byte) (refused *problem.Problem) {
	kind, secrets, signatures, refused := Webhook, d.keys.webhooks, v.signatures, &unauthorized
	if v.replay != nil {
		kind, secrets, signatures, refused = Replay, d.keys.replays, []http.Header{v.replay.signed}, &loop
	}
	v.key, v.place = kind, signer(secrets, signatures, body)
	switch {
	case v.place == 0:
		return refused
	case v.replay != nil && v.replay.hops >= maxHops:
		return &tooManyHops
	}
	v.is = admitted
	return nil
}

// clean makes of what was captured what is to be stored: without what is not for the primary, and with what the door
// knows of it.
func (d *Door) clean(request *envelope.Request, v visitor) {
	d.keys.scrub(request)
	delete(request.Header, "Expect") // the door has met it
	request.Prefix = d.prefix
	d.cleanForwarded(request)
	if v.replay != nil {
		v.replay.adopt(request)
	}
}
