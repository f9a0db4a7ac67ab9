package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Setting is a row of the table of settings.
type Setting struct{ Name, Default, Kind, About string }

// Settings are all settings, in the order of [Config].
func Settings() []Setting {
	var rows []Setting
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		field := t.Field(i)
		if name(field) == "" {
			continue
		}
		_, value, _ := strings.Cut(field.Tag.Get("env"), "default=")
		rows = append(rows, Setting{name(field), value, kind(field.Type), field.Tag.Get("about")})
	}
	return rows
}

// kind says for people what is read.
func kind(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Secret](), reflect.TypeFor[[]Secret]():
		return "secret"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		if t == reflect.TypeFor[int]() || t == reflect.TypeFor[int64]() {
			return "number"
		}
		return "level"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list"
	default:
		return "text"
	}
}

// Markdown is the table of settings for the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | what it is |\n| --- | --- | --- |\n")
	for _, s := range Settings() {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, value, s.About)
	}
	return b.String()
}
