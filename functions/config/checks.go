package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"fallback/functions/topology"
)

// mostPerSecond is far over what any of this can do, and keeps out infinity.
const mostPerSecond = 1_000_000

func between[N int | int64](got, least, most N) error {
	if got < least || got > most {
		return fmt.Errorf("%d is not between %d and %d", got, least, most)
	}
	return nil
}

func checkRate(perSecond float64) error {
	if !(perSecond >= 0 && perSecond <= mostPerSecond) { // NaN is neither
		return fmt.Errorf("%v is not between 0 and %d", perSecond, mostPerSecond)
	}
	return nil
}

func checkTimeout(d time.Duration) error {
	if d < 100*time.Millisecond || d > 10*time.Minute {
		return fmt.Errorf("%s is not between 100ms and 10m", d)
	}
	return nil
}

func atLeastASecond(d time.Duration) error {
	if d < time.Second {
		return fmt.Errorf("%s is less than 1s", d)
	}
	return nil
}

func oneOf(value string, all ...string) error {
	if !slices.Contains(all, value) {
		return fmt.Errorf("%q is not one of %s", value, strings.Join(all, ", "))
	}
	return nil
}

func checkBroker(c *Config) error {
	if c.AMQPServerURL == "" {
		return nil
	}
	u, err := brokerURL(c.AMQPServerURL)
	if err != nil {
		return err
	}
	if c.VHost = strings.TrimPrefix(u.Path, "/"); c.VHost == "" {
		c.VHost = topology.VHost
	}
	return nil
}

func checkQueue(c *Config) (err error) {
	c.Topology, err = topology.Of(c.Queue)
	return err
}

func checkPathPrefix(c *Config) error {
	if !strings.HasPrefix(c.PathPrefix, "/") || strings.ContainsAny(c.PathPrefix, "?# ") {
		return fmt.Errorf("%q is not a path that begins with /", c.PathPrefix)
	}
	if c.PathPrefix != "/" {
		c.PathPrefix = strings.TrimRight(c.PathPrefix, "/")
	}
	return nil
}

func checkMethods(c *Config) error {
	for i, m := range c.Methods {
		if c.Methods[i] = strings.ToUpper(strings.TrimSpace(m)); c.Methods[i] == "" {
			return errors.New("a method is empty")
		}
	}
	return nil
}

func checkTokens(c *Config) error {
	if slices.Contains(c.Tokens, "") {
		return errors.New("a token is empty")
	}
	return nil
}

func checkWebhookSecrets(secrets []Secret) error {
	var faults []error
	for i, secret := range secrets {
		if err := checkWebhookSecret(secret); err != nil {
			faults = append(faults, fmt.Errorf("number %d %w", i+1, err))
		}
	}
	return errors.Join(faults...)
}

func checkReplaySecret(c *Config) error {
	if c.ReplaySecret == "" {
		return nil
	}
	if err := checkWebhookSecret(c.ReplaySecret); err != nil {
		return fmt.Errorf("it %w", err)
	}
	return nil
}

func checkProxies(c *Config) error {
	if slices.Equal(c.TrustedProxies, []string{"none"}) {
		return nil
	}
	var faults []error
	for _, proxy := range c.TrustedProxies {
		prefix, err := parseProxy(strings.TrimSpace(proxy))
		if err != nil {
			faults = append(faults, fmt.Errorf("%q is neither an address nor a CIDR, nor none alone", proxy))
			continue
		}
		c.Proxies = append(c.Proxies, prefix)
	}
	return errors.Join(faults...)
}

func checkOrigins(c *Config) error {
	var faults []error
	for i, origin := range c.CORSOrigins {
		if c.CORSOrigins[i] = strings.TrimSpace(origin); !isOrigin(c.CORSOrigins[i]) {
			faults = append(faults, fmt.Errorf(
				"%q is neither an origin as a browser sends it, in lower case and without a path, nor *", origin))
		}
	}
	return errors.Join(faults...)
}

func checkProbePath(c *Config) error {
	path := c.ProbePath
	_, err := url.Parse(path)
	if err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.Contains(path, "#") {
		return fmt.Errorf("%q is not a path that begins with one /, without a #", path)
	}
	return nil
}

func checkSchedule(c *Config) error {
	if every, err := time.ParseDuration(c.Schedule); err == nil {
		return atLeastASecond(every)
	}
	if err := checkCron(c.Schedule); err != nil {
		return fmt.Errorf("%q is neither an interval (1m) nor a cron expression in UTC (0 3 * * *): %w", c.Schedule,
			err)
	}
	return nil
}

func checkMaxAge(c *Config) error {
	if c.MaxAge < 0 {
		return fmt.Errorf("%s is negative", c.MaxAge)
	}
	return nil
}

// checkWebhookSecret holds that a secret is one of Standard Webhooks, and not the empty one, with which anybody could
// sign.
func checkWebhookSecret(s Secret) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Reveal(), "whsec_"))
	switch {
	case err != nil:
		return errors.New("is not base64 behind whsec_")
	case len(key) == 0:
		return errors.New("is empty")
	}
	return nil
}

// parseProxy reads an address or a CIDR.
func parseProxy(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 { // peers are compared as IPv4, too
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// isOrigin says whether a browser could send s as the Origin of a page (RFC 6454, 6.2), or it is the one for all.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	standard := map[string]string{"http": "80", "https": "443"}[u.Scheme] // which browsers leave out
	return s == "*" || standard != "" && u.Host != "" && u.Port() != standard &&
		s == strings.ToLower(u.Scheme+"://"+u.Host)
}
