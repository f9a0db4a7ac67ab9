package deploy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// answer is one HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		for _, value := range values {
			w.Header().Add(name, value)
		}
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// refusal is an answer of the platform itself.
func refusal(status int, message string) answer {
	body, _ := marshal(map[string]string{"code": newID(), "error": message})
	return answer{status, http.Header{"Content-Type": {"application/json"}}, body}
}

// rejection is a result that the gateway cannot turn into an answer; what it holds is what the client gets instead.
type rejection struct {
	status  int
	message string
}

func (r rejection) Error() string { return r.message }

var (
	notHTTP      = rejection{http.StatusBadRequest, "Response is not valid 'message/http'."}
	notJSON      = rejection{http.StatusBadRequest, "Response is not valid 'application/json'."}
	unknownType  = rejection{http.StatusBadRequest, "Response did not specify a known content-type."}
	typeMismatch = rejection{http.StatusBadRequest, "Response type in header did not match generated content type."}
	internal     = rejection{http.StatusInternalServerError, "There was an internal server error."}
)

// projection is the part of a result that becomes the answer: the value of "error" if there is one, else all of it.
func projection(result json.RawMessage) json.RawMessage {
	fields, ok := fieldsOf(result)
	if !ok {
		return result
	}
	if failure, failed := fields["error"]; failed {
		return failure
	}
	return result
}

func fieldsOf(value json.RawMessage) (fields map[string]json.RawMessage, ok bool) {
	err := json.Unmarshal(value, &fields)
	return fields, err == nil && fields != nil
}

// asJSON shows the result itself: what a function's name with .json gives.
func asJSON(result json.RawMessage) answer {
	if kind(result) != '{' && kind(result) != '[' {
		return refusal(notJSON.status, notJSON.message)
	}
	return answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, result}
}

// asHTTP makes an answer of {"statusCode", "headers", "body"}, all of them optional.
func asHTTP(result json.RawMessage) answer {
	a, err := httpAnswer(result)
	if err == nil {
		return a
	}
	reason := notHTTP
	errors.As(err, &reason)
	return refusal(reason.status, reason.message)
}

func httpAnswer(result json.RawMessage) (answer, error) {
	fields, ok := fieldsOf(result)
	if !ok {
		return answer{}, notHTTP
	}
	header, err := answerHeader(fields["headers"])
	if err != nil {
		return answer{}, err
	}
	status, err := answerStatus(fields["statusCode"])
	if err != nil {
		return answer{}, err
	}
	contentType, typed := contentTypeOf(header)
	body, mediaType, err := answerBody(fields["body"], contentType, typed)
	if err != nil {
		return answer{}, err
	}
	if len(body) == 0 {
		return answer{cmp.Or(status, http.StatusNoContent), header, nil}, nil
	}
	status = cmp.Or(status, http.StatusOK)
	if status == http.StatusNoContent || status == http.StatusNotModified {
		return answer{}, internal // a body where HTTP has no place for one
	}
	header.Set("Content-Type", mediaType)
	return answer{status, header, body}, nil
}

// contentTypeOf takes the Content-Type out of the header: the gateway writes its own, or none if there is no body.
func contentTypeOf(header http.Header) (contentType string, ok bool) {
	values, ok := header["Content-Type"]
	delete(header, "Content-Type")
	if !ok {
		return "", false
	}
	return values[0], true
}

// answerBody makes bytes and their type of the body. A string is HTML unless it has a type; with a binary type it must
// be base64, and with a JSON type it is taken for base64 if it looks like it. Anything else is sent as JSON.
func answerBody(body json.RawMessage, contentType string, typed bool) ([]byte, string, error) {
	otherwise := "application/json"
	var text string
	switch kind(body) {
	case 0, 'n':
		return nil, "", nil
	case '"':
		otherwise = "text/html"
		if err := json.Unmarshal(body, &text); err != nil || text == "" {
			return nil, "", err
		}
	}
	if !typed {
		contentType = otherwise
	}
	media, err := parseMedia(contentType)
	switch {
	case err != nil && kind(body) != '"':
		return nil, "", typeMismatch
	case err != nil:
		return nil, "", unknownType
	case kind(body) != '"' && !media.json():
		return nil, "", typeMismatch
	case kind(body) != '"':
		return body, media.String(), nil
	case media.binary() || media.json() && looksLikeBase64(text):
		decoded, err := decodeBase64(text)
		if err != nil {
			return nil, "", typeMismatch
		}
		return decoded, media.String(), nil
	}
	return []byte(text), media.String(), nil
}

// kind is the first character of a JSON value, or 0 when there is none.
func kind(value json.RawMessage) byte {
	if len(value) == 0 {
		return 0
	}
	return value[0]
}

// answerStatus is 0 if there is no statusCode. A null is not none.
func answerStatus(value json.RawMessage) (int, error) {
	text := string(value)
	switch k := kind(value); {
	case k == 0:
		return 0, nil
	case k == '"':
		json.Unmarshal(value, &text)
	case k != '-' && (k < '0' || k > '9'):
		return 0, notHTTP
	default:
		text = wholeNumber(text)
	}
	status, err := strconv.Atoi(text)
	if err != nil || http.StatusText(status) == "" || status < 200 {
		return 0, notHTTP // the gateway knows only the registered ones
	}
	return status, nil
}

// wholeNumber writes 200.0 and 2e2 as 200.
func wholeNumber(text string) string {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || number != math.Trunc(number) {
		return text
	}
	return strconv.FormatFloat(number, 'f', 0, 64)
}

// answerHeader allows no headers at all, but not null in their place.
func answerHeader(value json.RawMessage) (http.Header, error) {
	header := http.Header{}
	if value == nil {
		return header, nil
	}
	fields, ok := fieldsOf(value)
	if !ok {
		return nil, notHTTP
	}
	for name, value := range fields {
		if err := addHeader(header, name, value); err != nil {
			return nil, err
		}
	}
	for _, name := range connectionHeaders {
		header.Del(name) // the gateway's connection is its own
	}
	return header, nil
}

// addHeader adds a string, a number or a boolean, or each of an array of them.
func addHeader(header http.Header, name string, value json.RawMessage) error {
	switch kind(value) {
	case '[':
		var values []json.RawMessage
		if err := json.Unmarshal(value, &values); err != nil {
			return err
		}
		for _, value := range values {
			if err := addHeader(header, name, value); err != nil {
				return err
			}
		}
		return nil
	case '{', 'n':
		return notHTTP
	}
	var text any
	if err := json.Unmarshal(value, &text); err != nil {
		return err
	}
	if _, ok := text.(string); !ok {
		text = string(value)
	}
	header.Add(name, strings.TrimSpace(fmt.Sprint(text)))
	return nil
}
