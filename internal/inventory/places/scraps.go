package places

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"banger/internal/act"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// scraps are half-written files. Who writes a file whole or not at all writes it under another name, made of its own and
// a random number, and gives it its own at the end; who dies before leaves that. Nobody reads it any more.
type scraps struct {
	place inventory.Place
	began time.Time
}

// random is the number of os.CreateTemp and of renameio in such a name. One in a million is shorter, and stays: it is
// taken for a person's, who counts his copies.
const random = `[1-9][0-9]{3,18}`

// The names as their writers make them (TestScrapsAreWhatIsWritten), and no others: a copy that a person keeps beside a
// file, or what an editor makes, may begin with its name too.
var (
	ofVM        = scrapNames(`(handles\.json|known_hosts|ssh_host_ed25519_key(\.pub|-)|(system|work\.ext4)\.tmp-)` + random)
	ofCache     = scrapNames(`(probe|firecracker)\.json` + random + `|prove-` + random + `\.json`)
	ofInitramfs = scrapNames(`.+\.img` + random)
	ofKey       = scrapNames(`id_ed25519(\.pub|-)` + random)
)

func scrapNames(pattern string) *regexp.Regexp { return regexp.MustCompile(`^\.(` + pattern + `)$`) }

// written are the names of what is written so, by the directory it lies in.
func (k scraps) written() map[string]*regexp.Regexp {
	all := map[string]*regexp.Regexp{
		k.place.Cache: ofCache,
		filepath.Join(k.place.Cache, "initramfs"): ofInitramfs,
		filepath.Join(k.place.State, "ssh"):       ofKey,
	}
	entries, _ := inventory.VMDirs(k.place.VMs) // one that cannot be read is told of by dirs
	for _, e := range entries {
		if e.IsDir() {
			all[filepath.Join(k.place.VMs, e.Name())] = ofVM
		}
	}
	return all
}

func (scraps) Rank() inventory.Rank { return inventory.Files }

// slack is by how much the times of files may lag behind the clock.
const slack = 2 * time.Second

// since is from when on a file may be one that a daemon writes that began then, age ago: files are dated by the clock on the
// wall, which may have been set back meanwhile.
func since(began, now time.Time, age time.Duration) time.Time {
	if began, now = began.Round(0), now.Round(0); now.Add(-age).Before(began) { // Round: by that clock
		began = now.Add(-age)
	}
	return began.Add(-slack)
}

func (k scraps) List(context.Context) (out []inventory.Object, err error) {
	busy := since(k.began, time.Now(), time.Since(k.began))
	for dir, names := range k.written() {
		entries, rerr := os.ReadDir(dir)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("look for half-written files: %w", rerr))
		}
		for _, e := range entries {
			if !names.MatchString(e.Name()) { // by name first: a start looks at every file of every VM
				continue
			}
			fi, ferr := e.Info()
			if ferr != nil || !fi.Mode().IsRegular() {
				continue
			}
			o := inventory.Object{Kind: "half-written file", Name: filepath.Join(dir, e.Name()), Scrap: true, Proof: "it lies in " + dir}
			if id, err := vm.ParseID(filepath.Base(dir)); err == nil && filepath.Dir(dir) == k.place.VMs {
				o.VM = id
			}
			if fi.ModTime().After(busy) {
				o.Busy = "it may be written on: it is not older than this daemon"
			}
			out = append(out, o)
		}
	}
	return out, err
}

// Clear removes the half-written files that daemons left which died. It is for a daemon that begins, and nothing of it writes
// yet: so none is being written on.
func Clear(ctx context.Context, p inventory.Place) error {
	all, err := scraps{p, time.Unix(1<<40, 0)}.List(ctx)
	for _, o := range all {
		rerr := act.Do(ctx, "scrap.remove", func() error { return os.Remove(o.Name) })
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

func (k scraps) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	err = act.Do(ctx, "scrap.remove", func() error { return os.Remove(o.Name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
