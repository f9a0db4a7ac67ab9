package config

import (
	"fmt"

	"fallback/functions/topology"
)

// Setting is a row of the table of settings: what the program reads, what `fallback settings` and the pages show, and
// what the project's own tests go by.
type Setting struct {
	Name    string // of the variable
	Unit    string // of its value, for people; how it is read follows from the field of [Config]
	Default string // what it is when it is not set, or set to nothing
	Example string // a value that it may have, where the default would be none
	About   string
	// check finds what the unit alone does not, and fills in what is derived. Several errors are joined.
	check func(*Config) error
}

// What RabbitMQ 4 takes by default: a message of 16 MiB (3.10: 128 MiB), and headers that fit into a frame of 128 KiB.
const mostBodyBytes, mostHeaderBytes = 16 << 20, 120 << 10

// settings are all of them, in the order of [Config].
var settings = []Setting{
	{
		Name: "AMQP_SERVER_URL", Unit: "secret",
		Example: "amqp://user:password@localhost:5672/",
		About: "The broker, with user and password: amqp://user:password@host:5672/ or amqps://. Percent-encode what " +
			"is special in a URL.",
		check: checkBroker,
	},
	{
		Name: "RABBITMQ_MANAGEMENT_URL", Unit: "secret",
		Example: "http://user:password@localhost:15672",
		About: "The broker's management API with the monitor's password: http://user:password@host:15672. With it, " +
			"/readyz can tell a classic queue from a quorum queue, and fallback queues and the worker's /metrics " +
			"show every queue.",
		check: func(c *Config) error { return checkHTTP(c.ManagementURL) },
	},
	{
		Name: "FALLBACK_QUEUE", Unit: "text", Default: topology.DefaultQueue,
		About: "The queue. The parked and retry queues, policies and permissions take their names from it.",
		check: checkQueue,
	},
	{
		Name: "FALLBACK_MESSAGE", Unit: "text", Default: "A request has been sent via fallback API",
		About: "The message body for a request that has none.",
	},
	{
		Name: "FALLBACK_ADDR", Unit: "text", Default: ":8080",
		About: "Where the server listens: host:port. Without a host, on every address.",
		check: func(c *Config) error { return checkAddress(c.Addr) },
	},
	{
		Name: "FALLBACK_PATH_PREFIX", Unit: "text", Default: "/fallback",
		About: "What is taken off the path before it is stored; / captures every path. A function's own route is its " +
			"prefix, so this is for the server.",
		check: checkPathPrefix,
	},
	{
		Name: "FALLBACK_METHODS", Unit: "list", Default: "POST,PUT,PATCH,DELETE",
		About: "The methods that are queued, separated by commas. Others get a 503: their clients need the primary's " +
			"answer.",
		check: checkMethods,
	},
	{
		Name: "FALLBACK_MAX_BODY_BYTES", Unit: "bytes", Default: "1048576",
		About: fmt.Sprintf("Bytes a body may have, at most %d (RabbitMQ's own limit).", mostBodyBytes),
		check: func(c *Config) error { return between(c.MaxBodyBytes, 1, mostBodyBytes) },
	},
	{
		Name: "FALLBACK_MAX_HEADER_BYTES", Unit: "bytes", Default: "65536",
		About: fmt.Sprintf("Bytes that the request line and headers may take in the message, at most %d (they must "+
			"fit into one AMQP frame).", mostHeaderBytes),
		check: func(c *Config) error { return between(c.MaxHeaderBytes, 1<<10, mostHeaderBytes) },
	},
	{
		Name: "FALLBACK_TIMEOUT", Unit: "duration", Default: "5s",
		About: "The longest that a request waits for its answer. A fifth of it, at most 1s, is kept for the broker: " +
			"the body must have come before.",
		check: func(c *Config) error { return checkTimeout(c.Timeout) },
	},
	{
		Name: "FALLBACK_MAX_IN_FLIGHT", Unit: "requests", Default: "1024",
		About: "Requests that wait for the broker at the same time; more get a 503 at once.",
		check: func(c *Config) error { return between(c.MaxInFlight, 1, 1<<16) },
	},
	{
		Name: "FALLBACK_MAX_BYTES_IN_HAND", Unit: "bytes", Default: "50331648",
		About: "Bytes that bodies take at the same time, those on their way in by what has come, up to four times as " +
			"much; more get a 503. An eighth of it, or one largest body if that is more, is for requests whose " +
			"signature is not checked yet.",
		check: func(c *Config) error { return between(c.MaxBytesInHand, c.MaxBodyBytes, 1<<40) },
	},
	{
		Name: "FALLBACK_RATE_LIMIT", Unit: "requests a second", Default: "0",
		Example: "50",
		About:   "Requests a second that are taken, in bursts of as many; more get a 429. 0 is no limit.",
		check:   func(c *Config) error { return checkRate(c.RateLimit) },
	},
	{
		Name: "FALLBACK_TOKENS", Unit: "secrets",
		Example: "what `openssl rand -hex 32` prints",
		About: "Tokens, separated by commas. If set, a request needs one of them, as Fallback-Authorization: Bearer " +
			"TOKEN, as Authorization: Bearer TOKEN, or in the path, /fallback/-/TOKEN/...; or a signature by one of " +
			"FALLBACK_WEBHOOK_SECRETS. They are never stored. To change one, list both for a while.",
		check: checkTokens,
	},
	{
		Name: "FALLBACK_WEBHOOK_SECRETS", Unit: "secrets",
		Example: "whsec_ and what `openssl rand -base64 32` prints",
		About: "Secrets of Standard Webhooks (whsec_...), separated by commas. If set, a request needs a signature " +
			"by one of them (webhook-signature, or svix-signature), or one of FALLBACK_TOKENS.",
		check: func(c *Config) error { return checkWebhookSecrets(c.WebhookSecrets) },
	},
	{
		Name: "FALLBACK_ACCEPT_REPLAYS", Unit: "secrets",
		Example: "whsec_ and what `openssl rand -base64 32` prints, as in the FALLBACK_REPLAY_SECRET of the first",
		About: "For a second Fallback behind a first: the first one's FALLBACK_REPLAY_SECRET (whsec_...). Its " +
			"replays are let in by their signature alone and keep their id. Any other replay is refused with 508: " +
			"it would be a loop.",
		check: func(c *Config) error { return checkWebhookSecrets(c.AcceptReplays) },
	},
	{
		Name: "FALLBACK_TRUSTED_PROXIES", Unit: "list",
		Default: "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
		About: "Whose X-Forwarded-* and Forwarded are kept, as addresses or CIDRs, separated by commas; none for " +
			"nobody. Those of others are replaced by what the door saw. On a platform, the platform's are kept.",
		check: checkProxies,
	},
	{
		Name: "FALLBACK_CORS_ORIGINS", Unit: "list",
		Example: "https://shop.example.com",
		About: "Origins whose pages may send anything from a browser and read the answers, separated by commas: " +
			"https://shop.example.com; * for all. Other pages may send what a form can.",
		check: checkOrigins,
	},
	{
		Name: "FALLBACK_TARGET_URL", Unit: "secret",
		Example: "https://api.example.com",
		About:   "The primary's base URL, for the drain: https://api.example.com. Without it the drain idles.",
		check:   func(c *Config) error { return checkHTTP(c.TargetURL) },
	},
	{
		Name: "FALLBACK_PROBE_PATH", Unit: "text", Default: "/",
		About: "What the drain asks the primary for (GET), behind the base URL, to see whether it is alive: any " +
			"answer under 500 says so.",
		check: checkProbePath,
	},
	{
		Name: "FALLBACK_TARGET_TIMEOUT", Unit: "duration", Default: "30s",
		About: "The longest that a replay waits for the primary's answer.",
		check: func(c *Config) error { return checkTimeout(c.TargetTimeout) },
	},
	{
		Name: "FALLBACK_REPLAY_SECRET", Unit: "secret",
		Example: "whsec_ and what `openssl rand -base64 32` prints",
		About:   "If set (whsec_...), replays are signed with it: Fallback-Signature.",
		check:   checkReplaySecret,
	},
	{
		Name: "FALLBACK_DRAIN_SCHEDULE", Unit: "text", Default: "1m",
		About: "When the drain runs: an interval of at least 1s (1m), or a cron expression in UTC (0 3 * * *).",
		check: checkSchedule,
	},
	{
		Name: "FALLBACK_DRAIN_ADDR", Unit: "text", Default: ":8081",
		About: "Where the drain's worker says whether it is well, and what it has done: /livez, /readyz and " +
			"/metrics.",
		check: func(c *Config) error { return checkAddress(c.DrainAddr) },
	},
	{
		Name: "FALLBACK_DRAIN_WINDOW", Unit: "duration", Default: "1h",
		About: "How long one run of the worker or a function may take. One that finds the primary down asks again " +
			"until then.",
		check: func(c *Config) error { return atLeastASecond(c.Window) },
	},
	{
		Name: "FALLBACK_DRAIN_RATE", Unit: "replays a second", Default: "0",
		Example: "50",
		About:   "Replays a second, at most. 0 is no limit.",
		check:   func(c *Config) error { return checkRate(c.DrainRate) },
	},
	{
		Name: "FALLBACK_DRAIN_CONCURRENCY", Unit: "replays", Default: "8",
		About: "Replays in flight, at most. It begins with one, and goes back when the primary is in trouble.",
		check: func(c *Config) error { return between(c.Concurrency, 1, 1000) },
	},
	{
		Name: "FALLBACK_MAX_ATTEMPTS", Unit: "replays", Default: "8",
		About: "Replays of a request that fails by itself (500, time-out) before it is parked.",
		check: func(c *Config) error { return between(c.MaxAttempts, 1, 1000) },
	},
	{
		Name: "FALLBACK_MAX_AGE", Unit: "duration", Default: "0s",
		Example: "72h",
		About:   "Requests received, or redriven, longer ago are treated as FALLBACK_STALE says. 0s is no limit.",
		check:   checkMaxAge,
	},
	{
		Name: "FALLBACK_STALE", Unit: "text", Default: "deliver",
		About: "What becomes of them: deliver, park or drop.",
		check: func(c *Config) error { return oneOf(c.Stale, "deliver", "park", "drop") },
	},
	{
		Name: "LOG_LEVEL", Unit: "level", Default: "info",
		About: "debug, info, warn or error.",
	},
	{
		Name: "LOG_FORMAT", Unit: "text", Default: "auto",
		About: "json, text, or auto: text on a terminal, else JSON.",
		check: func(c *Config) error { return oneOf(c.LogFormat, "auto", "json", "text") },
	},
}
