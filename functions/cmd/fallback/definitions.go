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

const demonstrationComment = "Made by `fallback definitions`. These are published demonstration passwords, for a broker that" +
	" listens on loopback only; for real use: fallback definitions --private DIR"

func definitionsCommand(w world) *cobra.Command {
	var private string
	cmd := &cobra.Command{
		Use:   "definitions",
		Short: "Write the broker's users, permissions, queues and policies",
		Long: `Definitions prints what exists in the broker in the form that RabbitMQ imports, with published demonstration
passwords. That is rabbitmq/definitions.json.

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

// writePrivate makes a password for each user and writes the two files.
func writePrivate(w world, t topology.Topology, dir string) error {
	passwords := map[string]topology.Password{}
	file := filepath.ToSlash(filepath.Join(dir, "definitions.json"))
	if !filepath.IsAbs(dir) {
		file = "./" + file // without a path, compose takes it for the name of a volume
	}
	var env strings.Builder
	fmt.Fprintf(&env, "# Made by `fallback definitions --private`. Keep it to yourself.\nFALLBACK_DEFINITIONS=%s\n", file)
	if t.Main != topology.DefaultQueue {
		fmt.Fprintf(&env, "FALLBACK_QUEUE=%s\n", t.Main)
	}
	for _, u := range t.Users() {
		p := topology.Password{Plain: rand.Text() + rand.Text()} // 52 letters and digits, 256 bits
		_, _ = rand.Read(p.Salt[:])                              // never fails
		passwords[u.Name] = p
		fmt.Fprintf(&env, "%s=%s\n", passwordVariable(u.Name), p.Plain)
	}
	definitions := t.Definitions("Made by `fallback definitions --private`.", func(user string) topology.Password { return passwords[user] })

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{"fallback.env", []byte(env.String()), 0o600},
		{"definitions.json", definitions, 0o644},
	} {
		if err := writeNew(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return err
		}
		fmt.Fprintln(w.stderr, "wrote", filepath.Join(dir, f.name))
	}
	return nil
}

// passwordVariable is the name of a user's password in env files and in docker-compose.yml.
func passwordVariable(user string) string {
	name := strings.ToUpper(strings.ReplaceAll(user, "-", "_")) + "_PASSWORD"
	if user == topology.Admin {
		return "RABBITMQ_" + name
	}
	return name
}

// writeNew refuses to overwrite: the passwords in use would be gone.
func writeNew(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; move it away first, it may hold the passwords in use", name)
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil { // whatever the umask
		f.Close()
		return err
	}
	return f.Close()
}
