// Package functions is the way in: all of Fallback's Go is below it.
//
// A request comes in through one of three adapters, becomes an *http.Request, and goes one way:
//
//	DO event ---- digitalocean --+
//	Lambda event -- awslambda ---+
//	HTTP --------- httpapi ------+--> httpapi.Door --> envelope.Capture --> rabbit.Publisher ==> RabbitMQ
//
// and, when the primary is back, out again:
//
//	RabbitMQ ==> rabbit.Source --> drain.Drainer --> target.Client ==> primary
//
// The packages on its way:
//
//   - envelope is a captured request: what is kept of it, how it is written down, how it is sent again.
//   - topology is what exists in the broker: queues, policies, users; rabbitmq/definitions.json is made from it.
//   - rabbit speaks AMQP; its package comment is the contract of a 202.
//   - management asks RabbitMQ's HTTP API what AMQP does not tell: types, policies and figures of queues, nodes.
//   - target sends a request to the primary; its table says what each answer means.
//   - drain empties the queue into the target: when, at which pace, and where what fails goes.
//   - httpapi is the one http.Handler: what is taken, what is refused, and with which answer; and the server around it.
//   - problem is the errors that are answered over HTTP; backoff is how long to wait after what has failed.
//   - digitalocean and awslambda turn a platform's event into a request and back, and run a built function; platform
//     is what the two have in common.
//   - config is the settings, telemetry the logs, app the wiring; metrics counts for Prometheus what app's parts do.
//   - worker is the drain on a schedule, with its health; operator what people do to the queues by hand.
//   - standin is a small API for trying things out.
//   - doctor looks at all that these rest on, for `fallback doctor`.
//   - cmd/fallback is the program; packages/fallback/enqueue and drain, at the top, are the functions; cmd/lambda is
//     both.
//
// To change
//
//   - what an answer of the primary means: its row in target/verdict.go; what its body says of it (202 and 508):
//     target/answer.go. What is special of 429 and 508: drain/item.go (asked), drain/judge.go and drain/suspended.go.
//     What becomes of the request then: drain/judge.go, and to which queue it goes: drain/settle.go. The README's list
//     of answers, and the text below the table of docs/drain.md, are written by hand.
//   - a setting: its field in config/config.go, its row in config/settings.go, which also has the most that it may be,
//     and app, which hands it on. docker-compose.yml passes every setting but the two addresses. A body over 16 MiB
//     also needs max_message_size, which rabbitmq/rabbitmq.conf does not set yet.
//   - a limit that is no setting: connections and heads in httpapi (server.go, heads.go, conn.go, listener.go), the
//     drain's in drain/once.go and drain/window.go, the bytes of bodies in memory in rabbit/inbox.go (off the queue)
//     and drain/once.go (with the drain). test/deploy/compose_test.go adds up their memory.
//   - a queue's name, a policy or a user: topology. The default name is also in .env.example, and in the pages'
//     examples.
//   - a metric: metrics/server.go, metrics/worker.go, or metrics/queues.go; what feeds it, a hook in httpapi.Options or
//     drain.Options and the method of app.ServerMetrics or app.DrainMetrics (with app's uncounted); and where the
//     README and docs/drain.md name it.
//   - an error that the door answers: httpapi/problem.go (with Outcomes), and the README's table of answers; one of the
//     broker's: rabbit/failure.go (with Codes); one of the worker's: worker/health.go; one of a platform's function:
//     platform, digitalocean and awslambda; one that several of these have: problem/problem.go.
//
// and then `make generate`, which makes rabbitmq/definitions.json and the tables of the pages anew.
//
// Imports point down: mains, then adapters, then app, then the packages on a request's way, then envelope and topology.
// Those on the way do not know each other: httpapi declares the two methods that it needs of a store, drain those of a
// queue (it knows target's verdicts). metrics, doctor and operator know the packages that they look at; worker stands
// above app.
// app/imports_test.go holds this as a table.
package functions
