package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"fallback/functions/envelope"
)

// TestWhatThePrimaryIsToTrust holds what is stored of the fields that speak for us and for proxies, and what the drain
// is to say where no proxy has.
func TestWhatThePrimaryIsToTrust(t *testing.T) {
	t.Parallel()
	const stranger, proxy = "203.0.113.7:5000", "10.1.2.3:5000"
	nothing := http.Header{}
	for _, row := range []struct {
		name, remote string
		platform     bool
		in, want     http.Header
	}{
		{"nothing", stranger, false, http.Header{}, nothing},
		{"ours", stranger, false, http.Header{
			"Fallback-Id": {"a"}, "Fallback-Received-At": {"b"}, "Fallback-Signature": {"c"}, "Fallback-Hops": {"1"},
			"Fallback-Authorization": {"e"}, "Fallback-Other": {"f"},
		}, http.Header{"Fallback-Other": {"f"}}},
		{"ours, as CGI reads them", stranger, false, http.Header{
			"Fallback_id": {"a"}, "fallback_SIGNATURE": {"b"}, "Fallback.received.at": {"c"},
			"Fallback-Received_at": {"d"}, "Fallback_authorization": {"e"},
		}, nothing},
		{"a stranger's word of others", stranger, false, http.Header{
			"X-Forwarded-For": {"1.1.1.1", "2.2.2.2"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"admin"},
			"X-Forwarded-Prefix": {"/x"},
			"X-Forwarded-User":   {"root"}, "X_forwarded_for": {"3"}, "X-Forwarded_user": {"root"},
			"Forwarded": {"for=1.1.1.1"}, "X-Real-Ip": {"1.1.1.1"}, "X_real_ip": {"1"},
			"X-Forwarded": {"stays"}, "Forwarded-To": {"stays"},
		}, http.Header{"X-Forwarded": {"stays"}, "Forwarded-To": {"stays"}}},
		{"a proxy's", proxy, false, http.Header{
			"X-Forwarded-For": {"1.1.1.1", "2.2.2.2"}, "X-Forwarded-Proto": {"https"},
			"X-Forwarded-Host": {"shop.example.com"}, "X-Forwarded-Prefix": {"/v2"},
			"X-Forwarded-Port": {"443"}, "Forwarded": {"for=1.1.1.1"}, "X-Real-Ip": {"1.1.1.1"},
		}, http.Header{
			"X-Forwarded-For": {"1.1.1.1, 2.2.2.2, 10.1.2.3"}, "X-Forwarded-Proto": {"https"},
			"X-Forwarded-Host": {"shop.example.com"}, "X-Forwarded-Prefix": {"/v2"},
			"X-Forwarded-Port": {"443"}, "Forwarded": {"for=1.1.1.1"}, "X-Real-Ip": {"1.1.1.1"},
		}},
		{"what a client slips past a proxy", proxy, false,
			http.Header{"X_forwarded_proto": {"https"}, "X-Forwarded_user": {"root"}, "X_real_ip": {"1.1.1.1"}}, nothing},
		{"a proxy's, by IPv6", "[::ffff:10.1.2.3]:5000", false, http.Header{"X-Forwarded-For": {"2001:db8::1"}},
			http.Header{"X-Forwarded-For": {"2001:db8::1, 10.1.2.3"}}},
		{"a proxy's that says nothing", proxy, false, http.Header{"X-Forwarded-For": {"", "2.2.2.2"}},
			http.Header{"X-Forwarded-For": {"2.2.2.2, 10.1.2.3"}}},
		{"of nobody known", "@", false, http.Header{"X-Forwarded-For": {"1.1.1.1"}}, nothing},
		{"on a platform", stranger, true, http.Header{"X-Forwarded-For": {"1.1.1.1, 203.0.113.7"},
			"X-Forwarded-Proto": {"https"}}, http.Header{"X-Forwarded-For": {"1.1.1.1, 203.0.113.7"},
			"X-Forwarded-Proto": {"https"}}},
		{"a client's word on a platform", proxy, true, http.Header{
			"X-Forwarded-For": {"10.1.2.3"}, "X-Forwarded-Port": {"443"}, "X-Forwarded-Host": {"admin"},
			"X-Forwarded-User": {"root"}, "Forwarded": {"for=10.0.0.1"}, "X-Real-Ip": {"10.0.0.1"},
		}, http.Header{"X-Forwarded-For": {"10.1.2.3"}, "X-Forwarded-Port": {"443"}}},
		{"on a platform that says nothing", stranger, true, http.Header{}, nothing},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var stored *envelope.Request
			o := options()
			o.Platform, o.TrustedProxies = row.platform, prefixes(t, "10.0.0.0/8")
			d := door(t, o, store{publish: func(_ context.Context,
				r *envelope.Request) error {
				stored = r
				return nil
			}})
			r := request("POST", "/fallback/orders", "x")
			r.RemoteAddr, r.Header = row.remote, row.in.Clone()
			r.Header.Set("Expect", "100-continue")
			r.Trailer = http.Header{"Fallback-Id": {"forged"}, "Fallback_signature": {"forged"},
				"X-Forwarded-For": {"1.1.1.1"}, "X-Sum": {"9"}}
			checkAnswer(t, serve(d, r), http.StatusAccepted, "")
			if got, want := fmt.Sprint(stored.Header), fmt.Sprint(row.want); got != want {
				t.Errorf("stored\n%s, want\n%s", got, want)
			}
			if stored.Remote != row.remote || stored.Scheme != "http" || stored.Host != "h" ||
				stored.Prefix != "/fallback" {
				t.Errorf("what the drain is to tell: %s, %s, %s and %s", stored.Remote, stored.Scheme, stored.Host,
					stored.Prefix)
			}
			if got := fmt.Sprint(stored.Trailer); got != "map[X-Sum:[9]]" {
				t.Errorf("the trailer: %s", got)
			}
		})
	}
}

func prefixes(t *testing.T, all ...string) (parsed []netip.Prefix) {
	t.Helper()
	for _, one := range all {
		p, err := netip.ParsePrefix(one)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	return parsed
}
