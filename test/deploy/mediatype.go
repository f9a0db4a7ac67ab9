package deploy

import (
	"encoding/base64"
	"errors"
	"maps"
	"mime"
	"slices"
	"strings"
)

// media is a Content-Type as the gateway reads it.
type media struct {
	name   string            // type/subtype, lower case
	params map[string]string // without the charset
	open   bool              // text in any charset, as opposed to one that the type prescribes
	text   bool
}

// The types that the gateway's HTTP library (akka-http, MediaType.scala) registers as text. All others are binary to
// it, text/* and +json included, unless they come with a charset.
var (
	fixedCharset = []string{
		"application/json", "application/json-patch+json", "application/merge-patch+json", "application/problem+json",
		"application/vnd.api+json", "application/x-www-form-urlencoded", "text/event-stream",
	}
	openCharset = []string{
		"application/atom+xml", "application/base64", "application/javascript", "application/problem+xml",
		"application/rss+xml",
		"application/soap+xml", "application/vnd.google-earth.kml+xml", "application/x-latex", "application/x-vrml",
		"application/xhtml+xml", "application/xml", "application/xml-dtd",
		"text/cache-manifest", "text/calendar", "text/css", "text/csv", "text/html", "text/markdown", "text/plain",
		"text/richtext",
		"text/tab-separated-values", "text/uri-list", "text/x-c", "text/x-h", "text/x-java-source", "text/x-vcard",
		"text/xml",
	}
	// registered as binary: a charset does not make them text
	binaryTypes = []string{"application/octet-stream", "application/pdf", "application/zip", "application/cbor",
		"application/x-gzip", "application/x-tar", "application/msword"}
	binaryMains = []string{"audio", "font", "image", "message", "multipart", "video"}
)

var errNoMediaType = errors.New("not a media type")

// parseMedia reads a Content-Type. None at all is an error, as it is for the gateway.
func parseMedia(contentType string) (media, error) {
	name, params, err := mime.ParseMediaType(contentType)
	main, sub, ok := strings.Cut(name, "/")
	if err != nil || !ok || main == "" || sub == "" {
		return media{}, errNoMediaType
	}
	_, charset := params["charset"]
	delete(params, "charset")
	m := media{name: name, params: params}
	switch {
	case slices.Contains(fixedCharset, name):
		m.text = true
	case slices.Contains(binaryMains, main), slices.Contains(binaryTypes, name):
	default:
		m.open = charset || slices.Contains(openCharset, name)
		m.text = m.open
	}
	return m, nil
}

func (m media) binary() bool { return !m.text }

func (m media) json() bool {
	return m.name == "application/json" || strings.HasSuffix(m.name, "+json")
}

// String is the Content-Type that a client sees: text that may have any charset has been sent as UTF-8.
func (m media) String() string {
	params := maps.Clone(m.params)
	if m.open {
		params["charset"] = "UTF-8"
	}
	return mime.FormatMediaType(m.name, params)
}

// decodeBase64 is as strict as Java's: no line ends, padding or none.
func decodeBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, base64.CorruptInputError(strings.IndexAny(text, "\r\n"))
	}
	if strings.HasSuffix(text, "=") {
		return base64.StdEncoding.DecodeString(text)
	}
	return base64.RawStdEncoding.DecodeString(text)
}

// looksLikeBase64 is the gateway's guess about strings with a JSON type: `true` and `1234` look like it.
func looksLikeBase64(text string) bool {
	text = strings.TrimSpace(text)
	if text == "" || len(text)%4 != 0 {
		return false
	}
	body := strings.TrimRight(text, "=")
	return len(text)-len(body) <= 2 && strings.Trim(body, base64Alphabet) == ""
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
