// Package harness gives tests the real parts: a RabbitMQ in a container from the repository's own conf and definitions,
// the server as a value in the test's process, and a reader that takes messages off the queue.
package harness

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
)

// VersionVariable names the RabbitMQ that the tests run on: "4.3" if it is not set, 4.0 and 3.10 in the matrix.
const VersionVariable = "FALLBACK_TEST_RABBITMQ"

// Version is the RabbitMQ that the tests run on.
func Version() string {
	if v := os.Getenv(VersionVariable); v != "" {
		return v
	}
	return "4.3"
}

// Broker is a RabbitMQ in a container. Its ports stay the same when it is stopped and started again.
type Broker struct {
	// AMQP and Management are host:port.
	AMQP, Management string

	pool     *dockertest.Pool
	resource *dockertest.Resource
}

// BrokerOptions change what a broker is made from.
type BrokerOptions struct {
	// Bare leaves out every conf, plugin and definition, the image's own too: the broker as a package manager installs
	// it. It has guest, on its own loopback only.
	Bare bool
	// Definitions is a file to boot with instead of the repository's own. Its passwords are not known here: it is for
	// the test to wait until it is let in.
	Definitions string
	// Memory bounds the container's, in bytes; 1 GiB if it is not set.
	Memory int64
	// Ports are further ports of the container to publish, for example "8080/tcp".
	Ports []string
}

// Root is the repository's root: the folder of go.mod, at or above the one that we run in, as tests do.
var Root = sync.OnceValue(func() string {
	dir, err := filepath.Abs(".")
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			panic("run this inside the repository")
		}
		dir = filepath.Dir(dir)
	}
})

// StartBroker starts a broker and waits until it takes connections from the definitions' users, unless it is bare or
// has definitions of its own. Its ports are published on loopback alone. Close removes it; so does the end of this
// process, whatever the way it ends.
func StartBroker(o BrokerOptions) (*Broker, error) {
	pool, err := dockertest.NewPool("")
	if err != nil {
		return nil, err
	}
	pool.MaxWait = Patience
	if err := pool.Client.Ping(); err != nil {
		return nil, fmt.Errorf("no Docker engine (`make test` sets one up): %w", err)
	}
	image := "rabbitmq:" + Version() + "-management"
	if _, err := pool.Client.InspectImage(image); err != nil {
		return nil, fmt.Errorf("image %s is not here (`make test` gets it): %w", image, err)
	}
	b := &Broker{pool: pool}
	if b.resource, err = pool.RunWithOptions(b.runOptions(o), func(h *docker.HostConfig) {
		h.AutoRemove = false      // it must survive a restart
		h.PublishAllPorts = false // dockertest's own, and on every address
		h.Memory = cmp.Or(o.Memory, 1<<30)
		if o.Bare {
			// the image has a conf of its own: guest from anywhere
			h.Tmpfs = map[string]string{"/etc/rabbitmq": "uid=999,gid=999"}
		}
	}); err != nil {
		return nil, err
	}
	if o.Bare || o.Definitions != "" {
		return b, nil
	}
	if err := b.WaitReady(); err != nil {
		logs, _ := Run(Patience, "docker", "logs", "--tail", "40", b.ID())
		return nil, errors.Join(fmt.Errorf("RabbitMQ did not come up: %w\n%s", err, logs), b.Close())
	}
	return b, nil
}

func (b *Broker) runOptions(o BrokerOptions) *dockertest.RunOptions {
	b.AMQP, b.Management = FreeAddress(), FreeAddress()
	options := &dockertest.RunOptions{
		Name: Name(), Repository: "rabbitmq", Tag: Version() + "-management", Hostname: "rabbitmq",
		PortBindings: map[docker.Port][]docker.PortBinding{
			"5672/tcp":  {binding(b.AMQP)},
			"15672/tcp": {binding(b.Management)},
		},
	}
	for _, port := range o.Ports {
		options.PortBindings[docker.Port(port)] = []docker.PortBinding{binding(FreeAddress())}
		options.ExposedPorts = append(options.ExposedPorts, port)
	}
	if !o.Bare {
		definitions := cmp.Or(o.Definitions, filepath.Join(Root(), "rabbitmq", "definitions.json"))
		options.Mounts = append(options.Mounts, definitions+":/etc/rabbitmq/definitions.json:ro")
		for _, file := range []string{"rabbitmq.conf", "enabled_plugins"} {
			options.Mounts = append(options.Mounts,
				filepath.Join(Root(), "rabbitmq", file)+":/etc/rabbitmq/"+file+":ro")
		}
	}
	return options
}

// nextPort is where FreeAddress looks next; processes that run at the same time begin far from each other.
var nextPort atomic.Int32

func init() { nextPort.Store(rand.Int32N(portCount)) }

// Ports from here on are below those that systems give to whoever asks for any port (32768 and up on Linux).
const lowestPort, portCount = 12000, 20000

// FreeAddress is a loopback address that was free a moment ago, and that nobody gets by chance while it is not in use:
// a container that is stopped and started again has a port that is its own.
func FreeAddress() string {
	for range portCount {
		port := lowestPort + int(nextPort.Add(1))%portCount
		if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	panic("no free port on 127.0.0.1")
}

func binding(address string) docker.PortBinding {
	host, port, _ := net.SplitHostPort(address)
	return docker.PortBinding{HostIP: host, HostPort: port}
}

// IP is the container's own address: without the process that published ports go through.
func (b *Broker) IP() string { return b.resource.Container.NetworkSettings.IPAddress }

// ID is the container's.
func (b *Broker) ID() string { return b.resource.Container.ID }

// Close removes the container.
func (b *Broker) Close() error { return b.pool.Purge(b.resource) }

// Port is the loopback address of a published port.
func (b *Broker) Port(port string) string { return b.resource.GetHostPort(port) }

// WaitReady waits until the publisher's user can connect and the management API answers.
func (b *Broker) WaitReady() error {
	return b.pool.Retry(func() error {
		conn, err := amqp.Dial(b.URL(topology.Publisher, topology.VHost))
		if err != nil {
			return err
		}
		defer conn.Close()
		return b.Call(http.MethodGet, "/api/overview", nil, nil)
	})
}

// URL is the AMQP URL of one of the definitions' users.
func (b *Broker) URL(user, vhost string) string {
	u := url.URL{Scheme: "amqp", Host: b.AMQP, User: url.UserPassword(user, topology.Demonstration(user).Plain)}
	return u.String() + "/" + url.PathEscape(vhost)
}
