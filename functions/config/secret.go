package config

import "log/slog"

// Secret is a value that no log, error or print shows.
type Secret string

// Reveal is the value itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string { return "(hidden)" }

// GoString keeps %#v from showing it.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps slog from showing it.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps encoders from showing it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
