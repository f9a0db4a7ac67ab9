package topology

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
)

// Password is a user's password and the salt of its hash.
type Password struct {
	Plain string
	Salt  [4]byte
}

// Demonstration is the published password of a user, for a broker that listens on loopback and holds nothing of worth.
// The salt is fixed, so that the committed file stays the same.
func Demonstration(user string) Password {
	salt := sha256.Sum256([]byte(user))
	return Password{Plain: "demonstration-" + user, Salt: [4]byte(salt[:4])}
}

// hash is RabbitMQ's own: base64 of the salt and SHA-256 of salt and password.
func (p Password) hash() string {
	sum := sha256.Sum256(append(p.Salt[:], p.Plain...))
	return base64.StdEncoding.EncodeToString(append(p.Salt[:], sum[:]...))
}

type (
	object = map[string]any
	// definitions has the keys that the broker's import knows, in the order in which they read best.
	definitions struct {
		Comment     string   `json:"//"`
		VHosts      []object `json:"vhosts"`
		Users       []object `json:"users"`
		Permissions []object `json:"permissions"`
		Queues      []object `json:"queues"`
		Policies    []object `json:"policies"`
	}
)

// Definitions is the topology as a RabbitMQ definitions file, with the passwords that the function gives for each user;
// comment is its first line, for people.
func (t Topology) Definitions(comment string, password func(user string) Password) []byte {
	d := definitions{
		Comment: comment,
		// Only inside metadata is the default queue type heard; without it, a declare that names no type, as the
		// article's, would be refused for not being the quorum queue that is there.
		VHosts: []object{{"name": VHost, "metadata": object{"default_queue_type": "quorum"}}},
	}
	for _, u := range t.Users() {
		d.Users = append(d.Users, object{
			"name": u.Name, "tags": u.Tags,
			"password_hash": password(u.Name).hash(), "hashing_algorithm": "rabbit_password_hashing_sha256",
		})
		d.Permissions = append(d.Permissions, object{
			"user": u.Name, "vhost": VHost, "configure": u.Configure, "write": u.Write, "read": u.Read,
		})
	}
	for _, p := range t.Policies() {
		d.Policies = append(d.Policies, object{
			"name": p.Queue, "vhost": VHost, "pattern": "^" + regexp.QuoteMeta(p.Queue) + "$", "apply-to": "queues",
			"priority": 10, "definition": p.Definition,
		})
	}
	for _, name := range t.Queues() {
		d.Queues = append(d.Queues, object{
			"name": name, "vhost": VHost, "durable": true, "auto_delete": false,
			// everything else is policy: it can change while messages wait
			"arguments": object{"x-queue-type": "quorum"},
		})
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		panic(err) // strings and numbers only
	}
	return out.Bytes()
}
