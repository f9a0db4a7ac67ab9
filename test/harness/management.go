package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"fallback/functions/topology"
)

// ManagementURL is the management API's URL with one of the definitions' users.
func (b *Broker) ManagementURL(user string) string {
	u := url.URL{Scheme: "http", Host: b.Management, User: url.UserPassword(user, topology.Demonstration(user).Plain)}
	return u.String()
}

// Call calls the management API as the admin. in and out are JSON, or nil.
func (b *Broker) Call(method, path string, in, out any) error {
	_, err := Manage(method, b.ManagementURL(topology.Admin)+path, in, out)
	return err
}

// Manage calls a management API; the error is nil for a 2xx. in and out are JSON, or nil.
func Manage(method, url string, in, out any) (status int, err error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return 0, err
		}
	}
	request, err := http.NewRequest(method, url, &body)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	// RabbitMQ closes a connection that was idle for five seconds, maybe when the next request is on its way; and
	// net/http tries none again that may change something.
	request.Close = true
	response, err := (&http.Client{Timeout: Patience}).Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
	case response.StatusCode >= 300:
		err = fmt.Errorf("%s %s: %s: %s", method, request.URL.Path, response.Status, answer)
	case out != nil:
		err = json.Unmarshal(answer, out)
	}
	return response.StatusCode, err
}
