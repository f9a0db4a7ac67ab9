// Command pack writes a program into the zip file that Lambda wants: `bootstrap`, executable, at the root. The same
// program gives the same bytes, on any host and at any time, so that an unchanged function is seen to be unchanged.
//
//	pack BOOTSTRAP FILE.zip
package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pack BOOTSTRAP FILE.zip")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// epoch is the first moment that a zip file can tell.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func pack(program, file string) error {
	code, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	archive := zip.NewWriter(&packed)
	entry := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate, Modified: epoch}
	entry.SetMode(0o755)
	w, err := archive.CreateHeader(entry)
	if err != nil {
		return err
	}
	if _, err := w.Write(code); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, packed.Bytes(), 0o644)
}
