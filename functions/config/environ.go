package config

import (
	"errors"
	"log/slog"
	"slices"
	"strings"

	"fallback/functions/topology"
)

// Environ is all that a process was given, in the form of [os.Environ]. Unlike a [Lookup] it can tell which names
// there are.
type Environ []string

// Lookup finds a variable, as [os.LookupEnv] does.
func (e Environ) Lookup(name string) (string, bool) {
	for _, variable := range e {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// Load is [Load] for a program that starts. A name that is nearly one of the two that keep strangers out is a fault:
// without it, the door would be open. All others that are no settings are in Strays.
func (e Environ) Load(needs ...string) (Config, error) {
	c, faults := read(e.Lookup, needs)
	for _, stray := range Strays(e.names()) {
		if stray.Guard {
			faults = append(faults, errors.New(stray.String()))
		} else {
			c.Strays = append(c.Strays, stray)
		}
	}
	return together(c, faults)
}

// names are those of the variables that are set to something.
func (e Environ) names() []string {
	var names []string
	for _, variable := range e {
		if name, value, _ := strings.Cut(variable, "="); value != "" {
			names = append(names, name)
		}
	}
	return names
}

// Stray is the name of a variable that looks like a setting and is none.
type Stray struct {
	Name, Nearest string
	// Guard: it is nearly the name of one of the two settings that keep strangers out.
	Guard bool
}

func (s Stray) String() string { return s.Name + ": no such setting; the nearest is " + s.Nearest }

// TellStrays logs what somebody has set and nobody reads.
func (c Config) TellStrays(log *slog.Logger) {
	for _, stray := range c.Strays {
		log.Warn("no such setting: it has no effect", "name", stray.Name, "nearest", stray.Nearest)
	}
}

const (
	ours  = "FALLBACK_"
	tests = ours + "TEST_" // what only the project's own tests read
	// slip is how many letters a mistyped name may be away from the right one.
	slip = 2
)

// guards keep strangers out.
var guards = []string{"FALLBACK_TOKENS", "FALLBACK_WEBHOOK_SECRETS"}

// Strays are those of the names that begin as ours do, or nearly are one of ours, and are none.
func Strays(names []string) []Stray {
	known := knownNames()
	var strays []Stray
	for _, name := range names {
		if slices.Contains(known, name) || strings.HasPrefix(name, tests) || isCluster(name) {
			continue
		}
		nearest, far := nearest(name, known)
		guard := far <= slip && slices.Contains(guards, nearest)
		if meant := guardIn(name); meant != "" && far > slip {
			nearest, guard = meant, true
		}
		if guard || far <= slip || strings.HasPrefix(strings.ToUpper(name), ours) {
			strays = append(strays, Stray{name, nearest, guard})
		}
	}
	return strays
}

// knownNames are the settings, and the names that the bundle and the functions have besides.
func knownNames() []string {
	names := []string{"FALLBACK_DEFINITIONS", "FALLBACK_DRAIN_AMQP_URL", "FALLBACK_DRAIN_TARGET_URL"}
	for _, setting := range Settings() {
		names = append(names, setting.Name)
	}
	standard, _ := topology.Of(topology.DefaultQueue)
	for _, user := range standard.Users() {
		names = append(names, topology.PasswordVariable(user.Name))
	}
	return names
}

// guardIn is the guard that is meant by a word in a name of ours: FALLBACK_API_TOKEN, FALLBACK_WEBHOOKS,
// FALLBACK_AUTH_KEY.
func guardIn(name string) string {
	name = strings.ToUpper(name)
	for _, meant := range [...]struct{ word, guard string }{
		{"WEBHOOK", "FALLBACK_WEBHOOK_SECRETS"}, {"SECRET", "FALLBACK_WEBHOOK_SECRETS"},
		{"TOKEN", "FALLBACK_TOKENS"}, {"AUTH", "FALLBACK_TOKENS"}, {"KEY", "FALLBACK_TOKENS"},
	} {
		if strings.HasPrefix(name, ours) && strings.Contains(name, meant.word) {
			return meant.guard
		}
	}
	return ""
}

// isCluster says whether Kubernetes sets a name by itself, where a Service is called fallback.
func isCluster(name string) bool {
	rest, ok := strings.CutPrefix(name, ours)
	return ok && (strings.HasPrefix(rest, "SERVICE_") || rest == "PORT" || strings.HasPrefix(rest, "PORT_"))
}

// nearest is the one of the known names that takes the fewest changes, whatever the case; of several, the one that
// begins alike for longest.
func nearest(name string, known []string) (best string, far int) {
	name = strings.ToUpper(name)
	for _, k := range known {
		d := distance(name, k)
		if best == "" || d < far || d == far && alike(name, k) > alike(name, best) {
			best, far = k, d
		}
	}
	return best, far
}

// alike is how many letters two names begin with in common.
func alike(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// distance is how many letters are to be put in, left out, replaced, or exchanged with their neighbour, to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(replaced, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
