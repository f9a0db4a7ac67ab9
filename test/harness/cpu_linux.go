package harness

import "github.com/prometheus/procfs"

// CPU is the name of this machine's processor; empty where it does not say.
func CPU() string {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return ""
	}
	cores, err := fs.CPUInfo()
	if err != nil || len(cores) == 0 {
		return ""
	}
	return cores[0].ModelName
}
