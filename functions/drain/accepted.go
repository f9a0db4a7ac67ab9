package drain

import "time"

// accepted is when requests were accepted: the last one, and the last ones of two groups that are not limited. What is
// accepted of a limited group does not say that the primary would take more of others.
type accepted struct {
	at     time.Time
	groups [2]group
	last   [2]time.Time // of each
}

// lately is how long what was accepted says that the primary takes requests.
const lately = 2 * time.Second

func (a *accepted) note(g group, now time.Time) {
	if a.groups[0] != g {
		a.groups[1], a.last[1] = a.groups[0], a.last[0]
	}
	a.groups[0], a.last[0] = g, now
}

// forget is for a group that is limited.
func (a *accepted) forget(g group) {
	for i := range a.groups {
		if a.groups[i] == g {
			a.last[i] = time.Time{}
		}
	}
}

// others says whether a request of another group was accepted lately.
func (a *accepted) others(g group, now time.Time) bool { return a.othersSince(g, now.Add(-lately)) }

// othersSince says whether one was accepted since a time.
func (a *accepted) othersSince(g group, since time.Time) bool {
	at := a.last[0]
	if a.groups[0] == g {
		at = a.last[1]
	}
	return !at.IsZero() && !at.Before(since)
}
