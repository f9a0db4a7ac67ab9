// Package rabbit speaks AMQP 0-9-1 to RabbitMQ: it stores captured requests, reads them back, and looks at queues.
//
// All of it goes over a link, which is one connection: a wire, TLS, a filter, and the client library. A confirmer
// stores messages on any queue, over links that it makes anew; [Publisher] is one that looks for its own queue.
// [Source] takes messages over a link and moves them with a confirmer. [Count] and [Examine] put questions over links
// of their own.
//
// # The promise of Publish
//
// [Publisher.Publish] returns nil after the broker has confirmed the message and not before: persistent, mandatory, on
// a quorum queue, so that a majority of the broker's nodes has it on disk. Every other outcome is an error, and every
// wait ends with the context. The rules that this rests on:
//
//   - A confirm alone is not enough. The broker acks a message that it could route nowhere; because the message is
//     mandatory, a basic.return comes before that ack. The client puts the return into a buffered channel before it
//     resolves the confirm, so a publish looks for its own return after the confirm and before it answers. The buffer
//     holds as many returns as there can be publishes in flight, so none is ever dropped.
//   - A false confirm is "refused or unknown": a nack when the channel is still open, unknown when it is not.
//   - A nack means that the queue is full, or that it was deleted while the message was under way to it. Unless the
//     queue is known to be full, the message is sent again, at most three times within 0.3 s: a queue that has gone
//     returns it.
//   - A publish whose outcome is unknown because the connection broke is tried once more on the next connection, under
//     the same message id. So a message may be stored twice; it is never answered for without being stored once. When
//     the second try fails too, the error is [ErrUnconfirmed], whatever it failed for: the first may have stored it.
//   - A channel that the broker closes with 403 says that the user may not publish: [ErrNotAllowed], no second try,
//     and no other connection for a second. Any other channel error may be the fault of one message among many in
//     flight.
//   - Connections are disposable. On any doubt (a late confirm, a closed channel, nothing heard for two heartbeats) a
//     [Publisher] takes a new one, and gives those in flight on the old one until their own deadlines. There is no end
//     to redialling; the wait between tries grows to a second, with jitter. While there is no connection, a publish
//     waits for one try, which is under way or which it begins when it is time for one; otherwise it fails at once.
//   - The client library's own recovery is off: with it, a confirm that was pending when the connection broke is held
//     back through the whole recovery (26 s were measured), and it is marked experimental.
//   - Every write is bounded. A broker under a memory or disk alarm stops reading; the library's Publish and Close
//     then hang in a write without end, and Publish holds a lock meanwhile. The connection below it therefore queues
//     writes in memory, writes them in batches with a deadline for each 128 KiB, and closes itself when one is missed;
//     and a publish reserves room in that queue first, for as long as its context lasts.
//   - connection.blocked is heard: while it lasts, Publish fails at once with [ErrBlocked].
//   - The queue is expected to be there. When a publish is returned, the publisher looks for it and, if it is gone,
//     tries once to declare it, durable and quorum, which an administrator may; the publisher's own user may not, and
//     the answer stays [ErrUnroutable].
//
// What each error says of the message is in the list of [Failure] values.
//
// # What the client library cannot read
//
// It closes the connection over a message whose headers are nested too deep, or are too many or too large. The broker
// takes such messages, and hands them out again and again. So each connection has a filter below the library that puts
// a header of ours in their place: see [HeaderUnreadable]. Such a message comes like any other, and [FromMessage] says
// that it cannot be read.
//
// # When nothing is left
//
// A message may be neither ready on a queue nor here. So [Source.Next] says that a queue is dry when nothing has come
// for a moment, the broker has said twice since that nothing is ready, and still nothing comes; the answers come
// behind what was sent before them. It says that a queue is stuck when something has been ready for ten seconds, there
// is room for it, and none comes.
//
// # Who closes what
//
// A Publisher owns its connections. [Publisher.Close] ends them, and returns when the last goroutine has. It gives the
// broker a second to say good-bye, and then closes the socket: the library's own wait has no end while heartbeats come.
// Channels that publish or consume are never closed on their own: they go with their connection. Questions about queues
// go over throw-away channels, because the broker's answer to a bad question is to close the channel.
package rabbit
