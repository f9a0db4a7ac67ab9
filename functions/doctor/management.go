package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fallback/functions/management"
	"fallback/functions/rabbit"
)

// concludeManagement tells whether the management API can be asked.
func (s *survey) concludeManagement() []Finding {
	m := s.management
	switch {
	case m.url == nil:
		return []Finding{skip("RABBITMQ_MANAGEMENT_URL is not set: a classic queue or a lost policy goes unnoticed")}
	case m.err != nil:
		return []Finding{fail("check RABBITMQ_MANAGEMENT_URL, and that the plugin rabbitmq_management is on", "%s: %s",
			m.url.Host, plain(m.err))}
	case slices.Contains(m.tags, "administrator"):
		return []Finding{warn("it has more than is needed: use fallback-monitor", "%s is an administrator", m.name)}
	case !slices.Contains(m.tags, "monitoring"):
		return []Finding{warn("give it the tag monitoring, or use fallback-monitor",
			"%s does not have the tag monitoring", m.name)}
	case m.url.Scheme == "http" && m.scope == public:
		return []Finding{warn("use https://", "the password goes over a public network in the clear")}
	}
	return []Finding{good("%s answers, as %s", m.url.Host, m.name)}
}

// answered says that the management API can be asked.
func (m managementSurvey) answered() bool { return m.url != nil && m.err == nil }

// concludeAlarms tells whether the broker takes messages, and how its nodes are.
func (s *survey) concludeAlarms() (all []Finding) {
	blocked := errors.Is(s.user.publish, rabbit.ErrBlocked)
	if m := s.management; m.answered() {
		nodes := judgeNodes(m.nodes)
		switch {
		case m.nodesErr != nil:
			all = append(all, warn("give the user of RABBITMQ_MANAGEMENT_URL the tag monitoring",
				"cannot look at the nodes: %s", plain(m.nodesErr)))
		case !blocked || nodes.State == Fail: // what the nodes say is up to five seconds old
			return []Finding{nodes}
		}
	}
	switch {
	case blocked:
		return append(all, fail("give the broker memory or disk, or drain; until then every request gets a 503", "%s",
			s.user.publish))
	case s.user.asked && !s.user.unseen() && s.user.publish == nil:
		return append(all, good("the broker takes messages; how near an alarm is, RABBITMQ_MANAGEMENT_URL would tell"))
	}
	return append(all, skip("neither a connection that may publish, nor the management API"))
}

// judgeNodes looks for alarms, nodes that are down, and a split.
func judgeNodes(nodes []management.Node) Finding {
	var down, split []string
	for _, n := range nodes {
		switch {
		case n.MemoryAlarm:
			return fail("give the broker more memory (vm_memory_high_watermark), or drain; until then every request "+
				"gets a 503",
				"memory alarm on %s: %s in use, the limit is %s", n.Name, size(int64(n.Memory)),
				size(int64(n.MemoryLimit)))
		case n.DiskAlarm:
			return fail("make room on its disk; until then every request gets a 503",
				"disk alarm on %s: %s free, the limit is %s", n.Name, size(int64(n.Disk)), size(int64(n.DiskLimit)))
		case !n.Running:
			down = append(down, n.Name)
		case len(n.Partitions) > 0:
			split = append(split, n.Name)
		}
	}
	switch {
	case len(nodes) == 0:
		return warn("ask again in a few seconds", "the management API knows no node")
	case len(split) > 0:
		return fail("see RabbitMQ's guide to network partitions", "the cluster is split, seen from %s",
			strings.Join(split, ", "))
	case len(down) > 0:
		return warn("start them: a quorum needs more than half", "%d of %d nodes are down: %s", len(down), len(nodes),
			strings.Join(down, ", "))
	case len(nodes) == 1:
		n := nodes[0]
		return good("none; memory %s of %s, disk %s free (alarm under %s); one node: a 202 means one disk",
			size(int64(n.Memory)), size(int64(n.MemoryLimit)), size(int64(n.Disk)), size(int64(n.DiskLimit)))
	default:
		return good("none on %d nodes, all are up", len(nodes))
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
