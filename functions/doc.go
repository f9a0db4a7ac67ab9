// Package functions is the way in: all of Fallback's Go is below it.
//
// A request comes in through a skin, becomes an *http.Request, and goes one way:
//
//	DO event ---- digitalocean --+
//	Lambda event -- awslambda ---+
//	HTTP --------- httpapi ------+--> httpapi.Door --> envelope.Capture --> rabbit.Publisher ==> RabbitMQ
//
// and, when the primary is back, out again:
//
//	RabbitMQ ==> rabbit.Source --> drain.Drainer --> target.Client ==> primary
//
// The rooms on its way:
//
//   - envelope is a captured request: what is kept of it, how it is written down, how it is sent again.
//   - topology is what exists in the broker: queues, policies, users; rabbitmq/definitions.json is made from it.
//   - rabbit speaks AMQP; its package comment is the contract of a 202.
//   - target sends a request to the primary; its table says what each answer means.
//   - drain empties the queue into the target: when, at which pace, and where what fails goes.
//   - httpapi is the one http.Handler: what is taken, what is refused, and with which answer; and the server around it.
//   - digitalocean and awslambda turn a platform's event into a request and back, and run a built function; platform is what
//     the two have in common.
//   - config is the settings, telemetry the logs, app the wiring; metrics counts for Prometheus what app's parts do.
//   - doctor looks at all that these rest on, for `fallback doctor`.
//   - cmd/fallback is the program; packages/fallback/enqueue and drain, at the top, are the functions; cmd/lambda is both.
//
// Imports point down: mains, then skins, then app, then the rooms, then envelope and topology. The rooms do not know each
// other: httpapi declares the two methods that it needs of a store, drain the few of a queue (it knows target's verdicts). app/imports_test.go holds this as a table.
package functions
