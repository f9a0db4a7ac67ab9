package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// manage tells whether the management API can be asked.
func (v *visit) manage(ctx context.Context) {
	if v.config.ManagementURL == "" {
		v.skip("RABBITMQ_MANAGEMENT_URL is not set: a classic queue or a lost policy goes unnoticed")
		return
	}
	u, _ := url.Parse(v.config.ManagementURL.Reveal()) // the settings have been looked at
	management, _ := rabbit.NewManagement(v.config.ManagementURL.Reveal())
	name, tags, err := management.WhoAmI(ctx)
	if err != nil {
		v.fail("check RABBITMQ_MANAGEMENT_URL, and that the plugin rabbitmq_management is on", "%s: %s", u.Host, plain(err))
		return
	}
	v.management = management
	switch {
	case slices.Contains(tags, "administrator"):
		v.warn("it has more than is needed: use fallback-monitor", "%s is an administrator", name)
	case !slices.Contains(tags, "monitoring"):
		v.warn("give it the tag monitoring, or use fallback-monitor", "%s does not have the tag monitoring", name)
	case u.Scheme == "http" && locate(ctx, u) == public:
		v.warn("use https://", "the password goes over a public network in the clear")
	default:
		v.ok("%s answers, as %s", u.Host, name)
	}
}

// alarms tells whether the broker takes messages, and how its nodes are.
func (v *visit) alarms(ctx context.Context) {
	if v.management != nil {
		nodes, err := v.management.Nodes(ctx)
		state, found, advice := judgeNodes(nodes)
		switch {
		case err != nil:
			v.warn("give the user of RABBITMQ_MANAGEMENT_URL the tag monitoring", "cannot look at the nodes: %s", plain(err))
		case v.blocked == nil || state == Fail: // what the nodes say is up to five seconds old
			v.tell(Finding{v.check, state, found, advice})
			return
		}
	}
	switch {
	case v.blocked != nil:
		v.fail("give the broker memory or disk, or drain; until then every request gets a 503", "%s", v.blocked)
	case v.published:
		v.ok("the broker takes messages; how near an alarm is, RABBITMQ_MANAGEMENT_URL would tell")
	default:
		v.skip("neither a connection that may publish, nor the management API")
	}
}

// judgeNodes looks for alarms, nodes that are down, and a split.
func judgeNodes(nodes []rabbit.NodeReport) (state State, found, advice string) {
	var down, split []string
	for _, n := range nodes {
		switch {
		case n.MemoryAlarm:
			return Fail, fmt.Sprintf("memory alarm on %s: %s in use, the limit is %s", n.Name, size(int64(n.Memory)), size(int64(n.MemoryLimit))),
				"give the broker more memory (vm_memory_high_watermark), or drain; until then every request gets a 503"
		case n.DiskAlarm:
			return Fail, fmt.Sprintf("disk alarm on %s: %s free, the limit is %s", n.Name, size(int64(n.Disk)), size(int64(n.DiskLimit))),
				"make room on its disk; until then every request gets a 503"
		case !n.Running:
			down = append(down, n.Name)
		case len(n.Partitions) > 0:
			split = append(split, n.Name)
		}
	}
	switch {
	case len(nodes) == 0:
		return Warn, "the management API knows no node", "ask again in a few seconds"
	case len(split) > 0:
		return Fail, "the cluster is split, seen from " + strings.Join(split, ", "), "see RabbitMQ's guide to network partitions"
	case len(down) > 0:
		return Warn, fmt.Sprintf("%d of %d nodes are down: %s", len(down), len(nodes), strings.Join(down, ", ")), "start them: a quorum needs more than half"
	case len(nodes) == 1:
		n := nodes[0]
		return OK, fmt.Sprintf("none; memory %s of %s, disk %s free (alarm under %s); one node: a 202 means one disk",
			size(int64(n.Memory)), size(int64(n.MemoryLimit)), size(int64(n.Disk)), size(int64(n.DiskLimit))), ""
	default:
		return OK, fmt.Sprintf("none on %d nodes, all are up", len(nodes)), ""
	}
}

// size is for people.
func size(bytes int64) string {
	const unit = 1000
	switch {
	case bytes < unit*unit:
		return fmt.Sprintf("%d kB", bytes/unit)
	case bytes < unit*unit*unit:
		return fmt.Sprintf("%d MB", bytes/unit/unit)
	default:
		return fmt.Sprintf("%.1f GB", float64(bytes)/unit/unit/unit)
	}
}

// queues tells of each queue whether it is there, a quorum queue, under the policy of the topology, and how full it is.
func (v *visit) queues(ctx context.Context) {
	if v.management == nil {
		v.skip("types, policies and limits are seen through the management API only")
		return
	}
	names := v.config.Topology.Queues()
	var queues map[string]rabbit.QueueReport
	for {
		var err error
		if queues, err = v.management.QueueReports(ctx, v.config.VHost, names); err != nil {
			v.fail("give its user a permission on the virtual host, as the definitions do for fallback-monitor", "cannot look at the queues: %s", plain(err))
			return
		}
		young := slices.ContainsFunc(slices.Collect(maps.Values(queues)), func(q rabbit.QueueReport) bool { return !q.Known })
		if deadline, _ := ctx.Deadline(); !young || time.Until(deadline) < 2*time.Second {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	policies := policies(v.config.Topology)
	for _, name := range names {
		q, there := queues[name]
		if !there {
			v.fail("import the definitions (fallback definitions)", "%s does not exist", name)
			continue
		}
		state, found, advice := judgeQueue(q, policies[name])
		v.tell(Finding{v.check, state, name + ": " + found, advice})
	}
}

// policies are those of the definitions, by queue.
func policies(t topology.Topology) map[string]map[string]any {
	var definitions struct {
		Policies []struct {
			Name       string         `json:"name"` // the queue's
			Definition map[string]any `json:"definition"`
		} `json:"policies"`
	}
	if err := json.Unmarshal(t.Definitions("", topology.Demonstration), &definitions); err != nil {
		panic(err) // it is made by us
	}
	all := map[string]map[string]any{}
	for _, p := range definitions.Policies {
		all[p.Name] = p.Definition
	}
	return all
}

// importAgain is what helps against a policy that is gone or not ours.
const importAgain = "import your definitions again: rabbitmqctl import_definitions FILE"

// judgeQueue compares a queue with what it should be. Of what is wrong, the first that fails is told, or that warns.
func judgeQueue(q rabbit.QueueReport, want map[string]any) (state State, found, advice string) {
	if q.Type != "quorum" {
		return Fail, fmt.Sprintf("%s, and not quorum: a confirm does not mean that a message is on disk, and the promise of a 202 does not hold", q.Type),
			"drain and delete it, then import the definitions"
	}
	found = "quorum, " + count(int(q.Messages), "message")
	if len(q.Members) > 1 {
		found += fmt.Sprintf(", %d of %d members online", len(q.Online), len(q.Members))
	}
	if !q.Known {
		return Warn, found + "; its policy is not known yet", "ask again in a few seconds"
	}
	if len(q.Members) > 1 && len(q.Online) <= len(q.Members)/2 {
		return Fail, found + ": no majority, nothing is confirmed", "start the nodes that are down"
	}
	got := func(key string) any {
		if value, set := q.Arguments["x-"+key]; set { // as the article's program might have set it
			return value
		}
		return q.Definition[key]
	}
	if wrong := deviations(want, got); len(wrong) > 0 {
		if q.Policy == "" {
			return Fail, found + "; no policy applies: messages could be dropped", importAgain
		}
		return Fail, fmt.Sprintf("%s; policy %s: %s", found, q.Policy, strings.Join(wrong, ", ")), importAgain
	}
	full := max(share(q.Messages, got("max-length")), share(q.Bytes, got("max-length-bytes")))
	switch {
	case got("max-length") == nil || got("max-length-bytes") == nil:
		return Warn, found + "; it has no limit on messages or on bytes", importAgain
	case full >= 100:
		return Fail, found + "; it is full, and refuses more", "drain it, or raise max-length and max-length-bytes in its policy"
	case full > 80:
		return Warn, fmt.Sprintf("%s; %d %% full", found, full), "drain it, or raise max-length and max-length-bytes in its policy"
	case len(q.Online) < len(q.Members):
		return Warn, found, "start the nodes that are down"
	}
	return OK, fmt.Sprintf("%s, %d %% full, policy %s", found, full, q.Policy), ""
}

// fewReturns is a delivery limit that looks at a queue, or a primary that is down, can reach.
const fewReturns = 1000

// deviations are the settings that could lose a message and are not as wanted. Limits are anybody's own.
func deviations(want map[string]any, got func(key string) any) (wrong []string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch value := got(key); key {
		case "max-length", "max-length-bytes":
		case "delivery-limit":
			if limit, ok := value.(float64); !ok || limit >= 0 && limit < fewReturns {
				wrong = append(wrong, fmt.Sprintf("%s is %s", key, shown(value)))
			}
		default:
			if value != want[key] {
				wrong = append(wrong, fmt.Sprintf("%s is %s and not %s", key, shown(value), shown(want[key])))
			}
		}
	}
	return wrong
}

func shown(value any) string {
	switch v := value.(type) {
	case nil:
		return "not set"
	case string:
		return fmt.Sprintf("%q", v)
	default:
		return fmt.Sprint(v)
	}
}

// share is how much of a limit is used, in hundredths; 0 without one.
func share(used int64, limit any) int {
	most, ok := limit.(float64)
	if !ok || most <= 0 {
		return 0
	}
	return int(float64(used) * 100 / most)
}
