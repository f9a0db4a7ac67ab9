package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/topology"
)

const demonstrationComment = "Made by `fallback definitions`. These are published demonstration passwords, for a " +
	"broker that" +
	" listens on loopback only; for real use: fallback definitions --private DIR"

func definitionsCommand(w world) *cobra.Command {
	var private string
	cmd := &cobra.Command{
		Use:   "definitions",
		Short: "Write the broker's users, permissions, queues and policies",
		Long: `Definitions prints what exists in the broker in the form that RabbitMQ imports, with published
demonstration passwords. That is rabbitmq/definitions.json.

With --private DIR it makes fresh random passwords and writes two files, neither of which may be there already:
DIR/definitions.json for the broker (it holds salted hashes only, and the broker reads it as another user) and
DIR/fallback.env (for you alone) with the passwords, in the form that docker compose and the shell read.`,
		Example: `  fallback definitions > rabbitmq/definitions.json
  fallback definitions --private private && docker compose --env-file private/fallback.env up`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(w.lookup)
			if err != nil {
				return err
			}
			if private != "" {
				return writePrivate(w, c.Topology, private)
			}
			_, err = w.stdout.Write(c.Topology.Definitions(demonstrationComment, topology.Demonstration))
			return err
		},
	}
	cmd.Flags().StringVar(&private, "private", "", "folder for a definitions file and an env file with fresh passwords")
	return cmd
}

// writePrivate makes a password for each user and writes the two files, or neither.
func writePrivate(w world, t topology.Topology, dir string) error {
	if strings.ContainsAny(dir+t.Main, "'\n") {
		return errors.New("a quote in the folder's or the queue's name cannot be written into an env file")
	}
	env, definitions := freshFiles(t, dir)
	files := []file{
		{filepath.Join(dir, "fallback.env"), env, 0o600},
		{filepath.Join(dir, "definitions.json"), definitions, 0o644},
	}
	for _, f := range files {
		if _, err := os.Lstat(f.name); err == nil {
			return fmt.Errorf("%s is there already; move it away first, it may hold the passwords in use", f.name)
		}
	}
	if err := makeFolder(dir); err != nil {
		return err
	}
	if err := writeAll(files); err != nil {
		return err
	}
	for _, f := range files {
		fmt.Fprintln(w.stderr, "wrote", f.name)
	}
	return nil
}

// file is one that is to be written.
type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// writeAll writes new files, or none: what was written when one of them fails is removed again.
func writeAll(files []file) error {
	for i, f := range files {
		err := writeNew(f)
		if err == nil {
			continue
		}
		for _, written := range files[:i] {
			err = errors.Join(err, os.Remove(written.name))
		}
		return err
	}
	return nil
}

// freshFiles is the content of the two files, with fresh passwords.
func freshFiles(t topology.Topology, dir string) (env, definitions []byte) {
	imported := filepath.ToSlash(filepath.Join(dir, "definitions.json"))
	if !filepath.IsAbs(dir) {
		imported = "./" + imported // without a path, compose takes it for the name of a volume
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by `fallback definitions --private`. Keep it to yourself.\nFALLBACK_DEFINITIONS='%s'\n",
		imported)
	if t.Main != topology.DefaultQueue {
		fmt.Fprintf(&b, "FALLBACK_QUEUE='%s'\n", t.Main)
	}
	passwords := map[string]topology.Password{}
	for _, u := range t.Users() {
		p := topology.Password{Plain: rand.Text() + rand.Text()} // 52 letters and digits, 256 bits
		_, _ = rand.Read(p.Salt[:])                              // never fails
		passwords[u.Name] = p
		fmt.Fprintf(&b, "%s=%s\n", topology.PasswordVariable(u.Name), p.Plain)
	}
	password := func(user string) topology.Password { return passwords[user] }
	return []byte(b.String()), t.Definitions("Made by `fallback definitions --private`.", password)
}

// makeFolder makes one that the broker's user can look into, whatever the umask; one that is there stays as it is.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// writeNew refuses to overwrite: the passwords in use would be gone. It leaves no file that has not all in it.
func writeNew(f file) error {
	out, err := os.OpenFile(f.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; move it away first, it may hold the passwords in use", f.name)
	}
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	if err == nil {
		err = out.Chmod(f.mode) // whatever the umask
	}
	if err = errors.Join(err, out.Close()); err != nil {
		err = errors.Join(err, os.Remove(f.name))
	}
	return err
}
