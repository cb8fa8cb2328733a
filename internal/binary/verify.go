package binary

import (
	"bufio"
	"bytes"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"banger/internal/api"
	"banger/internal/vm"
)

// sums are SHA-256 digests in hex by the name of the file, without its directory. A digest without a name has the name "".
type sums map[string]string

var sumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// readSums reads what sha256sum prints: "HEX  NAME", or "HEX *NAME"; what is something else is passed over.
func readSums(r io.Reader) (sums, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSums+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSums {
		return nil, vm.Errorf(vm.CodeInvalid, "a file of digests that has more than %d MiB is none", maxSums>>20)
	}
	s := sums{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		hex, name, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		hex, name = strings.ToLower(hex), strings.TrimPrefix(strings.TrimSpace(name), "*")
		if !sumPattern.MatchString(hex) {
			continue
		}
		if name != "" {
			name = path.Base(name)
		}
		s[name] = hex
	}
	return s, nil
}

// of finds the digest of a file.
func (s sums) of(i item) (sum string, ok bool) {
	if i.name == "" {
		return "", false
	}
	sum, ok = s[path.Base(i.name)]
	return sum, ok
}

// cover says whether all of these are listed. One that is listed with another digest is an error.
func (s sums) cover(who string, items ...item) (all bool, err error) {
	all = true
	for _, i := range items {
		want, ok := s.of(i)
		if ok && want != i.sum {
			return false, mismatch(i, who, want)
		}
		all = all && ok
	}
	return all, nil
}

func mismatch(i item, who, want string) error {
	return vm.Errorf(vm.CodeInvalid, "%s has SHA-256 %s, %s says %s", i.name, i.sum, who, want).
		WithHint("it is damaged, or not what it should be: nothing was installed")
}

// check holds goods against everything that is known of them: nothing may contradict, and something must vouch for both
// programs. version is the one that is wanted; empty = not known yet.
func (l *Library) check(g goods, p parcel, given []string, version string) (checked string, err error) {
	ofGiven, err := checkGiven(g, given)
	if err != nil {
		return "", err
	}
	whole := g.archive
	if whole.name == "" {
		whole = g.vmm
	}
	if want, ok := p.beside[""]; ok && want != whole.sum {
		return "", mismatch(whole, "the file of digests beside it", want)
	}
	_, bare := p.beside[""]
	archive, err := p.beside.cover("the file of digests beside it", g.archive)
	if err != nil {
		return "", err
	}
	programs, err := p.beside.cover("the file of digests beside it", g.vmm, g.jailer)
	if err != nil {
		return "", err
	}
	if _, err := g.inner.cover("its own "+fileSums, g.vmm, g.jailer); err != nil {
		return "", err
	}
	pinned, err := l.pinned(g, version)
	if err != nil {
		return "", err
	}
	switch {
	case pinned:
		return api.CheckedPinned, nil
	case ofGiven:
		return api.CheckedGiven, nil
	case p.safe && (archive || programs || bare && g.archive.name != ""):
		return api.CheckedSums, nil
	}
	return "", unknown(g)
}

// checkGiven holds goods against the digests that the user gave, each of which must be one of theirs.
func checkGiven(g goods, given []string) (all bool, err error) {
	for _, want := range given {
		if want == g.archive.sum || want == g.vmm.sum || want == g.jailer.sum {
			continue
		}
		has := g.vmm
		if g.archive.name != "" {
			has = g.archive
		}
		return false, mismatch(has, "--sha256", want)
	}
	return g.archive.sum != "" && slices.Contains(given, g.archive.sum) ||
		slices.Contains(given, g.vmm.sum) && slices.Contains(given, g.jailer.sum), nil
}

var namedVersion = regexp.MustCompile(`-v?([0-9]+\.[0-9]+\.[0-9]+)(-|$)`)

// pinned says whether these are the programs of a version that we have the digests of. Of such a version nothing else is
// taken. One that is not known yet is taken from the program's name, if that tells: a name is enough to refuse by.
func (l *Library) pinned(g goods, version string) (bool, error) {
	if m := namedVersion.FindStringSubmatch(path.Base(g.vmm.name)); m != nil && version == "" {
		version = m[1]
	}
	for v, p := range l.pins {
		if v != version && (version != "" || p.vmm != g.vmm.sum) {
			continue
		}
		for _, of := range []struct {
			item
			want string
		}{{g.vmm, p.vmm}, {g.jailer, p.jailer}} {
			if of.sum != of.want {
				return false, mismatch(of.item, "banger's own list for "+v, of.want)
			}
		}
		return true, nil
	}
	return false, nil
}

// unknown refuses what nothing vouches for.
func unknown(g goods) error {
	e := vm.Errorf(vm.CodeInvalid, "nothing says what %s should be: banger does not know its SHA-256 (%s)", g.vmm.name, g.vmm.sum)
	if g.archive.name != "" {
		return e.WithHint("if a source that you trust says so, give it: --sha256 %s", g.archive.sum)
	}
	return e.WithHint("if a source that you trust says so, give it, and the jailer's: --sha256 %s --sha256 %s", g.vmm.sum, g.jailer.sum)
}
