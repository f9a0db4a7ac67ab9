package harness

import (
	"log/slog"
	"testing"

	"fallback/functions/app"
	"fallback/functions/topology"
)

// Drain is a drain of the virtual host into a primary, as the drainer's user, as a value in the test's process. It is
// closed when the test ends.
func (v *VHost) Drain(t testing.TB, primary *Primary, settings Settings) (*app.Drain, *Log) {
	t.Helper()
	env := Settings{"AMQP_SERVER_URL": v.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"LOG_LEVEL": "debug"}
	c := env.load(t, settings)
	log := &Log{}
	d, err := app.NewDrain(c, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: c.LogLevel})), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		if t.Failed() {
			t.Logf("the drain's log:\n%s", log)
		}
	})
	return d, log
}
