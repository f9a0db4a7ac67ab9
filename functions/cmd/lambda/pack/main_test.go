package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPack holds that the zip has the program as Lambda wants it, and that neither when nor from which file it was
// made is to be seen.
func TestPack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code := bytes.Repeat([]byte("code"), 10_000)
	var packed [][]byte
	for _, name := range []string{"bootstrap", "another"} {
		program := filepath.Join(dir, name)
		if err := os.WriteFile(program, code, 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour * time.Duration(len(name)))
		if err := os.Chtimes(program, old, old); err != nil {
			t.Fatal(err)
		}
		file := program + ".zip"
		if err := pack(program, file); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		packed = append(packed, raw)
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("the same program gave two files")
	}
	archive, err := zip.NewReader(bytes.NewReader(packed[0]), int64(len(packed[0])))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != 1 || archive.File[0].Name != "bootstrap" || archive.File[0].Mode().Perm() != 0o755 ||
		!archive.File[0].Modified.Equal(epoch) {
		t.Fatalf("got %+v", archive.File)
	}
	entry, err := archive.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	if got, err := io.ReadAll(entry); err != nil || !bytes.Equal(got, code) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(code))
	}
	if err := pack(filepath.Join(dir, "missing"), filepath.Join(dir, "x.zip")); err == nil {
		t.Error("a program that is not there was packed")
	}
}
