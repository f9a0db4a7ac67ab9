//go:build !linux

package harness

// CPU is the name of this machine's processor; empty where it does not say.
func CPU() string { return "" }
