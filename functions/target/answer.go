package target

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/problem"
)

// discard reads what is left of an answer, so that its connection can be used again, and not more than is cheaper to
// read than to connect anew. The answer counts whether its body comes or not; a slow one is cut off. Behind a 101
// there is no body: what comes is of another protocol, without an end, and not bounded by the request's context. The
// start of the body of what may be a door's answer is returned.
func discard(answer *http.Response, cancel context.CancelFunc) (start []byte) {
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	timer := time.AfterFunc(discardTimeout, cancel)
	defer timer.Stop()
	if answer.StatusCode == http.StatusAccepted && answer.Header.Get(envelope.HeaderID) != "" ||
		answer.StatusCode == http.StatusLoopDetected {
		start, _ = io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	}
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	return start
}

// isLoop says that the answer to a replay of sent is a door's of Fallback, to which the way leads back: it refuses the
// replay, or has taken it for a new request, since its answer has an id of its own. A door that knows the replay for
// what it is answers with the id that was sent, and the primary may echo that, too.
func isLoop(answer *http.Response, body []byte, sent string) bool {
	var door struct{ ID, Queue, Type string }
	if json.Unmarshal(body, &door) != nil {
		return false
	}
	id := answer.Header.Get(envelope.HeaderID)
	switch answer.StatusCode {
	case http.StatusAccepted:
		return id != "" && id != sent && door.ID == id && door.Queue != ""
	case http.StatusLoopDetected:
		return door.Type == problem.Prefix+problem.Loop
	}
	return false
}
