// Package fault tries the promise of a 202 while things break: a server in a process of its own, a real broker in a
// container, a TCP proxy between them, and senders that go on while the fault strikes and after.
//
// The senders keep a ledger outside the server. It holds each request's checksum from before it is sent, and the
// message id from the moment the whole 202 was read. When a fault is over, the queue is read empty and the ledger says
// what was lost, corrupt, unexpected, duplicated, and what became of the requests that got no 202.
//
// Behind the queue it goes on: there are worker processes, a proxy of theirs before the broker, and a primary that
// enters what it takes into the same ledger. When such a fault is over, the drain has come to its end and the parked
// queue is read, lost = accepted - delivered - parked - expired is to be 0, and what came twice came under the same
// Idempotency-Key.
//
// Some of these faults are about blame: a primary that limits one sender, a way that is closed to all, answers without
// an end, a loop, messages that cannot be read or handed over, a request that ends workers, a parked queue that is
// full. There it is held, too, that what is to blame is parked and nothing else, that nothing is sent sooner than the
// primary has asked, and that the others are replayed meanwhile.
//
// Everything that a round chooses comes from a seed, which is printed and can be given:
//
//	go test -tags e2e ./test/fault -run 'TestFaults/network_reset$' -fault.seed=42
//
// Time to recover counts from the end of the fault to the first 202 to a request that was sent after it, at most 5 s;
// then the load goes on until the service is as before. A half-open connection has no end, because the server is never
// told: there it counts from its begin, and the deadline of one request comes on top of the limit.
//
// The long run measures, and holds these times as they are promised. The short one, which is a part of `make test`,
// adds harness.Slack, so that it says the same on a slow and busy machine. In both, an answer that is late because its
// sender was, by what the sender's own timers say, is counted apart and is no evidence. A fault lasts until it has
// shown, for 15 s longer at most, where that can be told while it lasts.
//
// TestFaults does a short round of each fault before the queue and TestReplays of each behind it, some at a time where
// the fault is not the whole broker's; TestOverload sends from far more connections than the server takes. With
// FAULT_ACKNOWLEDGED=1000000 the first goes on until as many requests were accepted, over the whole list, and the
// second for a hundredth of that with each fault; with FAULT_RESULTS=. results.json and RESULTS.md are written here.
//
// What only the machine decides, such as which requests are in flight when a packet is lost, a seed does not bring
// back. A SIGKILL of the broker does not take the host's page cache away: that a confirmed message was synced to disk
// is the broker's word, and not tried here.
package fault
