package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"fallback/functions/management"
	"fallback/functions/topology"
)

// concludeQueues tells of each queue whether it is there, a quorum queue, under the policy of the topology, and how
// full it is.
func (s *survey) concludeQueues() (all []Finding) {
	m := s.management
	switch {
	case !m.answered():
		return []Finding{skip("types, policies and limits are seen through the management API only")}
	case m.queuesErr != nil:
		return []Finding{fail("give its user a permission on the virtual host, as the definitions do for "+
			"fallback-monitor", "cannot look at the queues: %s", plain(m.queuesErr))}
	}
	policies := map[string]map[string]any{}
	for _, p := range s.config.Topology.Policies() {
		policies[p.Queue] = p.Definition
	}
	for _, q := range m.queues {
		if errors.Is(q.Err, management.ErrNotFound) {
			all = append(all, fail("import the definitions (fallback definitions)", "%s does not exist", q.Name))
			continue
		}
		f := judgeQueue(q, policies[q.Name], m.queues[0]) // the main queue is the first
		isRetry := slices.ContainsFunc(s.config.Topology.Retries,
			func(r topology.Retry) bool { return r.Name == q.Name })
		if f.State == OK && q.Messages > 0 && isRetry {
			f.State, f.Advice = Warn, "nothing, if it is known why: they are sent again by themselves; the drain's "+
				"log and fallback_drain_trouble tell what is wrong"
			f.Found += "; the primary did not take them"
		}
		f.Found = q.Name + ": " + f.Found
		all = append(all, f)
	}
	return all
}

// importAgain is what helps against a policy that is gone or not ours.
const importAgain = "import your definitions again: rabbitmqctl import_definitions FILE"

// raise is what helps against a queue that is full, or nearly.
const raise = "drain it, or raise max-length and max-length-bytes in its policy"

// judgeQueue compares a queue with what it should be, and with the main queue. The first failure is told, or else the
// first warning.
func judgeQueue(q management.Queue, want map[string]any, main management.Queue) Finding {
	if q.Type != "quorum" {
		return fail("drain and delete it, then import the definitions",
			"%s, and not quorum: a confirm does not mean that a message is on disk, and the promise of a 202 does "+
				"not hold", q.Type)
	}
	found := "quorum, " + count(q.Messages, "message")
	if len(q.Members) > 1 {
		found += fmt.Sprintf(", %d of %d members online", len(q.Online), len(q.Members))
	}
	if q.Err != nil {
		return warn("ask again in a few seconds", "%s; its policy is not known yet", found)
	}
	if len(q.Members) > 1 && len(q.Online) <= len(q.Members)/2 {
		return fail("start the nodes that are down", "%s: no majority, nothing is confirmed", found)
	}
	got := settings(q)
	if wrong := deviations(want, got); len(wrong) > 0 {
		if q.Policy == "" {
			return fail(importAgain, "%s; no policy applies: messages could be dropped", found)
		}
		return fail(importAgain, "%s; policy %s: %s", found, q.Policy, strings.Join(wrong, ", "))
	}
	full := max(share(int64(q.Messages), got("max-length")), share(q.Bytes, got("max-length-bytes")))
	switch {
	case full >= 100:
		return fail(raise, "%s; it is full, and refuses more", found)
	case got("max-length") == nil || got("max-length-bytes") == nil:
		return warn(importAgain, "%s; it has no limit on messages or on bytes", found)
	case full > 80:
		return warn(raise, "%s; %d %% full", found, full)
	case want["message-ttl"] != nil && len(shortfalls(q, main)) > 0:
		// a retry queue's: all that waits may have to go there
		return warn("raise max-length and max-length-bytes in its policy, and in the definitions that the broker "+
			"boots with",
			"%s; it takes less than %s: %s", found, main.Name, strings.Join(shortfalls(q, main), ", "))
	case len(q.Online) < len(q.Members):
		return warn("start the nodes that are down", "%s", found)
	}
	return good("%s, %d %% full, policy %s", found, full, q.Policy)
}

// settings are those of a queue, as its policy or its arguments have them.
func settings(q management.Queue) (got func(key string) any) {
	return func(key string) any {
		if value, set := q.Arguments["x-"+key]; set { // as the article's program might have set it
			return value
		}
		return q.Definition[key]
	}
}

// shortfalls are the limits of a queue that are lower than the main queue's.
func shortfalls(q, main management.Queue) (lower []string) {
	got, want := settings(q), settings(main)
	for _, key := range []string{"max-length", "max-length-bytes"} {
		limit, limited := want(key).(float64)
		if own, ok := got(key).(float64); ok && limited && own < limit {
			lower = append(lower, fmt.Sprintf("%s is %s and not %s", key, shown(own), shown(limit)))
		}
	}
	return lower
}

// A delivery-limit below fewReturns can be used up by peeks, and by a primary that is down.
const fewReturns = 1000

// deviations are the settings that could lose a message and are not as wanted. Limits are anybody's own.
func deviations(want map[string]any, got func(key string) any) (wrong []string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch value := got(key); key {
		case "max-length", "max-length-bytes":
		case "delivery-limit":
			if limit, ok := value.(float64); !ok || limit >= 0 && limit < fewReturns {
				wrong = append(wrong, fmt.Sprintf("%s is %s", key, shown(value)))
			}
		default:
			if !same(value, want[key]) {
				wrong = append(wrong, fmt.Sprintf("%s is %s and not %s", key, shown(value), shown(want[key])))
			}
		}
	}
	return wrong
}

// same compares a value of the management API, whose numbers are JSON's, with one of the topology.
func same(got, want any) bool {
	if n, isNumber := want.(int); isNumber {
		return got == float64(n)
	}
	return got == want
}

func shown(value any) string {
	switch v := value.(type) {
	case nil:
		return "not set"
	case string:
		return fmt.Sprintf("%q", v)
	case float64: // a JSON number
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// share is how much of a limit is used, in hundredths; 0 without one.
func share(used int64, limit any) int {
	most, ok := limit.(float64)
	if !ok || most <= 0 {
		return 0
	}
	return int(float64(used) * 100 / most)
}
