//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestTLS holds that amqps works with a broker whose certificate is of a CA of one's own, named in the URL, and that
// whoever forgets to name it, or speaks TLS to the wrong port, is told what to do.
func TestTLS(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	ca := startTLS(t, vhost)
	address := func(scheme, port, query string) string {
		u, err := url.Parse(vhost.URL(topology.Publisher))
		if err != nil {
			t.Fatal(err)
		}
		u.Scheme, u.Host, u.RawQuery = scheme, net.JoinHostPort(vhost.IP(), port), query
		return u.String()
	}

	server := vhost.Serve(t, harness.Settings{"AMQP_SERVER_URL": address("amqps", "5671", "cacertfile="+ca)})
	server.WaitReady(t)
	accepted := map[string]string{}
	for _, body := range []string{"small", strings.Repeat("x", 1<<20)} {
		r := send(t, "POST", server.URL+"/fallback", body)
		checkAccepted(t, r)
		accepted[r.id()] = body
	}
	checkNoneLost(t, vhost, accepted)

	for _, row := range []struct{ name, url, hint string }{
		{"unknown CA", address("amqps", "5671", ""), "cacertfile="},
		{"a port without TLS", address("amqps", "5672", ""), "does not speak TLS"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := vhost.Serve(t, harness.Settings{"AMQP_SERVER_URL": row.url})
			harness.Eventually(t, "a hint in the log", func() bool {
				return strings.Contains(server.Log.String(), row.hint)
			})
			checkProblem(t, send(t, "POST", server.URL+"/fallback", "x"), http.StatusServiceUnavailable,
				"broker-unavailable")
		})
	}
}

// startTLS gives the running broker a listener on 5671, and returns the file of its CA.
func startTLS(t *testing.T, vhost *harness.VHost) string {
	t.Helper()
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificates(t, net.ParseIP(vhost.IP()), ca, cert, key)
	for _, file := range []string{cert, key} {
		if err := os.Chmod(file, 0o644); err != nil { // the broker runs as another user
			t.Fatal(err)
		}
		if _, err := harness.Run(harness.Patience, "docker", "cp", file,
			vhost.ID()+":/var/lib/rabbitmq/"+filepath.Base(file)); err != nil {
			t.Fatal(err)
		}
	}
	err := vhost.Eval(`{ok, _} = application:ensure_all_started(ssl),
		rabbit_networking:start_ssl_listener(5671,
			[{certfile, "/var/lib/rabbitmq/cert.pem"}, {keyfile, "/var/lib/rabbitmq/key.pem"}, {verify, verify_none}], 1)`)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// writeCertificates makes a CA, and with it a certificate for the address.
func writeCertificates(t *testing.T, address net.IP, caFile, certFile, keyFile string) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	write := func(file, kind string, der []byte, err error) {
		if err == nil {
			err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of one's own"},
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "rabbitmq"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{address}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	write(caFile, "CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	write(certFile, "CERTIFICATE", der, err)
	der, err = x509.MarshalECPrivateKey(key)
	write(keyFile, "EC PRIVATE KEY", der, err)
}
