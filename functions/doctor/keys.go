package doctor

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"fallback/functions/httpapi"
	"fallback/functions/metrics"
)

// keysSurvey is which keys have let somebody in since the server was started.
type keysSurvey struct {
	uses []string
	err  error
}

func (s *survey) hasKeys() bool {
	return len(s.config.Tokens)+len(s.config.WebhookSecrets)+len(s.config.AcceptReplays) > 0
}

func (s *survey) askKeys(ctx context.Context) {
	if s.hasKeys() {
		s.keys.uses, s.keys.err = keyUses(ctx, s.config.Addr)
	}
}

// concludeKeys tells which are used: one that is to be changed may go when it is not used any more.
func (s *survey) concludeKeys() []Finding {
	switch {
	case !s.hasKeys():
		return []Finding{good("none are set")}
	case s.keys.err != nil:
		return []Finding{skip("which are used is not known: no server's /metrics at %s", s.config.Addr)}
	case len(s.keys.uses) == 0:
		return []Finding{skip("which are used is not known: the server at %s was started without them", s.config.Addr)}
	}
	return []Finding{good("since the server's start: %s", strings.Join(s.keys.uses, ", "))}
}

// keyUses reads the metrics of the server on this host: "token 1 used 17 times".
func keyUses(ctx context.Context, addr string) (uses []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime/3)
	defer cancel()
	answer, err := httpapi.Ask(ctx, addr, "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", answer.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	for _, one := range families[metrics.KeyUses].GetMetric() {
		labels := map[string]string{}
		for _, l := range one.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		times := counted(one.GetCounter().GetValue())
		uses = append(uses, fmt.Sprintf("%s %s %s", labels["kind"], labels["place"], times))
	}
	return uses, nil
}

func counted(times float64) string {
	switch times {
	case 0:
		return "never used"
	case 1:
		return "used once"
	default:
		return fmt.Sprintf("used %.0f times", times)
	}
}
