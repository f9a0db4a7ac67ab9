package management

import (
	"context"
	"encoding/json"
	"strings"
)

// Node is a node of the broker. Numbers are bytes, 0 where the management API does not know them.
type Node struct {
	Name        string   `json:"name"`
	Running     bool     `json:"running"`
	MemoryAlarm bool     `json:"mem_alarm"`
	DiskAlarm   bool     `json:"disk_free_alarm"`
	Memory      looseInt `json:"mem_used"`
	MemoryLimit looseInt `json:"mem_limit"`
	Disk        looseInt `json:"disk_free"`
	DiskLimit   looseInt `json:"disk_free_limit"`
	Partitions  []string `json:"partitions"` // the nodes that it is split from
}

// Nodes are those of the broker. The user needs the tag monitoring. The error says that the management API did not
// answer, or not to this user.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var nodes []Node
	return nodes, c.get(ctx, "/api/nodes", &nodes)
}

// looseInt is a number for which the broker writes a text when it does not know it.
type looseInt int64

func (n *looseInt) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), `"`) {
		return nil
	}
	return json.Unmarshal(raw, (*int64)(n))
}
