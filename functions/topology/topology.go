// Package topology is what exists in the broker, as data: queues, policies, users and what each user may do. All names
// derive from the name of the main queue.
//
// [Topology.Definitions] writes it in the form that RabbitMQ imports at boot. Why each thing is as it is stands beside
// it; the package holds what is true on RabbitMQ 3.10, 4.0 and 4.3 alike.
package topology

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// DefaultQueue is the name of the main queue, from the article that this project grew out of.
const DefaultQueue = "FallbackAPIQueue"

// VHost is the virtual host of everything here.
const VHost = "/"

// Topology is what exists in the broker for one main queue.
type Topology struct {
	// Main is where accepted requests wait.
	Main string
	// Parked is where requests wait that the primary will not take.
	Parked string
	// Retries hold requests for a time and then give them back to Main, shortest first.
	Retries []Retry
}

// Retry is a queue that gives its messages back to the main queue after TTL. There is one for each time to wait,
// because a quorum queue expires messages at its head only: with different times in one queue, the long ones block the
// short.
type Retry struct {
	Name string
	TTL  time.Duration
}

// Of derives the topology from the name of the main queue. The name must be one to 200 bytes of printable ASCII and not
// begin with "amq.", which the broker keeps for itself.
func Of(queue string) (Topology, error) {
	if queue == "" || len(queue) > 200 || strings.HasPrefix(queue, "amq.") || !printable.MatchString(queue) {
		return Topology{}, fmt.Errorf(
			`queue name %q: want 1 to 200 printable ASCII characters, not beginning with "amq."`, queue)
	}
	return Topology{
		Main:   queue,
		Parked: queue + ".parked",
		Retries: []Retry{
			{queue + ".retry.10s", 10 * time.Second},
			{queue + ".retry.1m", time.Minute},
			{queue + ".retry.10m", 10 * time.Minute},
		},
	}, nil
}

var printable = regexp.MustCompile(`^[!-~]+$`)

// Queues are the names of all queues, the main one first.
func (t Topology) Queues() []string {
	names := []string{t.Main, t.Parked}
	for _, r := range t.Retries {
		names = append(names, r.Name)
	}
	return names
}

// User is a user of the broker and the least that it needs. The three expressions are what it may configure, write and
// read, as the broker's permissions have it.
type User struct {
	Name                   string
	Tags                   []string
	Configure, Write, Read string
}

// The users' names.
const (
	Admin     = "admin"
	Publisher = "fallback-publisher"
	Drainer   = "fallback-drainer"
	Monitor   = "fallback-monitor"
)

// PasswordVariable is the variable of a user's password in env files and in docker-compose.yml.
func PasswordVariable(user string) string {
	name := strings.ToUpper(strings.ReplaceAll(user, "-", "_")) + "_PASSWORD"
	if user == Admin {
		return "RABBITMQ_" + name
	}
	return name
}

const (
	nothing    = "^$"
	everything = ".*"
)

// Users are all users; there is no guest.
func (t Topology) Users() []User {
	main, parked := regexp.QuoteMeta(t.Main), regexp.QuoteMeta(t.Parked)
	return []User{
		{Admin, []string{"administrator"}, everything, everything, everything},
		// Publishing goes through the default exchange, which permissions know as amq.default. The queue's own name is
		// there for the passive declare of the readiness check (RabbitMQ 4.3.1 and later want some permission on the
		// queue); by itself it allows nothing else.
		{Publisher, []string{}, nothing, `^(amq\.default|` + main + `)$`, nothing},
		// The drainer publishes to the retry and parked queues, through the default exchange too.
		{Drainer, []string{}, nothing, `^amq\.default$`, `^(` + main + `|` + parked + `)$`},
		// The monitor reads through the management API only.
		{Monitor, []string{"monitoring"}, nothing, nothing, nothing},
	}
}
