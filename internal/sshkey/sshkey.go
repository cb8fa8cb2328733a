// Package sshkey makes the ed25519 keys that let `vm ssh` reach a guest and be sure of it: one key of the user's for all
// VMs, one host key per VM that is pinned by name and forgotten with the VM. It knows nothing of VMs.
package sshkey

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// Key is a key pair in OpenSSH's formats.
type Key struct {
	PrivatePEM string // "-----BEGIN OPENSSH PRIVATE KEY-----…"
	Public     string // "ssh-ed25519 AAAA…", one line without its end
}

// Ensure reads the key at path, or makes one there (and PATH.pub beside it). The directory is made private. Callers that
// come at the same time, be it in several processes, get one key. A public half that is missing or another key's, as a
// crash may leave it, is written anew; a private one that is no key is vm.CodeCorrupt, and left for the user to look at.
func Ensure(ctx context.Context, path, comment string) (Key, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := create(ctx, path, comment); err != nil {
			return Key{}, fmt.Errorf("make ssh key %s: %w", path, err)
		}
		b, err = os.ReadFile(path) // another's, if that was quicker
	}
	if err != nil {
		return Key{}, fmt.Errorf("read ssh key: %w", err)
	}
	k, err := parse(path, b)
	if err != nil {
		return Key{}, err
	}
	if publicAt(path+".pub") == k.Public {
		return k, nil
	}
	public := []byte(k.Public + " " + comment + "\n")
	if err := file.Write(ctx, "key.public", path+".pub", public, 0o644); err != nil {
		return Key{}, fmt.Errorf("write ssh key: %w", err)
	}
	return k, nil
}

// create makes a private key and gives it its name once it is whole and on the disk, unless the name is taken by then.
func create(ctx context.Context, path, comment string) error {
	dir := filepath.Dir(path)
	if err := act.Do(ctx, "key.directory", func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return err
	}
	f, remove, err := file.Temp(ctx, "key.temp", dir, "."+filepath.Base(path)+"-") // with mode 0600
	if err != nil {
		return err
	}
	defer remove()
	_, err = f.Write(pem.EncodeToMemory(block))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Not rename(2), which would put this key over one that somebody else already uses.
	err = act.Do(ctx, "key", func() error { return os.Link(f.Name(), path) })
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return file.SyncDir(dir)
}

// publicAt returns the key in a public key's file, without its comment; empty when there is none.
func publicAt(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return ""
	}
	return text(key)
}

func text(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

func parse(path string, b []byte) (Key, error) {
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return Key{}, vm.Errorf(vm.CodeCorrupt, "read ssh key %s: %w", path, err).
			WithHint("move the file away: a new key is made when there is none")
	}
	return Key{PrivatePEM: string(b), Public: text(signer.PublicKey())}, nil
}

// Pin writes a known_hosts file at path that knows alias by this key and nothing else. One that does is left: a VM is
// adopted on a full disk too.
func Pin(ctx context.Context, path, alias string, host Key) error {
	if now, err := os.ReadFile(path); err == nil && string(now) == alias+" "+host.Public+"\n" {
		return nil
	}
	if err := file.Write(ctx, "key.pin", path, []byte(alias+" "+host.Public+"\n"), 0o600); err != nil {
		return fmt.Errorf("pin the host key of %s: %w", alias, err)
	}
	return nil
}
