package image

import (
	"regexp"
	"slices"
	"strings"

	"banger/internal/vm"
)

// recipe is an image that banger knows how to build.
type recipe struct {
	name     string
	suite    string
	packages []string // beside Debian's essential ones and apt
	epoch    string   // SOURCE_DATE_EPOCH: no file is younger, so that equal packages give equal digests
}

// recipes is small: what a shell, the network and package installation need. No kernel, no init system (banger-guest
// is PID 1 unless a package brings /sbin/init), no sshd (banger-guest serves SSH).
func recipes() []recipe {
	return []recipe{{
		name:     vm.DefaultImage,
		suite:    "bookworm",
		packages: []string{"ca-certificates", "curl", "iproute2", "iputils-ping", "kmod", "less", "netbase", "procps"},
		epoch:    "1686355200", // 10 June 2023, the release of Debian 12
	}}
}

func recipeNamed(name string) (recipe, bool) {
	all := recipes()
	i := slices.IndexFunc(all, func(r recipe) bool { return r.name == name })
	if i < 0 {
		return recipe{}, false
	}
	return all[i], true
}

func recipeNames() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.name)
	}
	return names
}

// with returns r with more packages, sorted, each once.
func (r recipe) with(packages ...string) recipe {
	r.packages = append(slices.Clone(r.packages), packages...)
	slices.Sort(r.packages)
	r.packages = slices.Compact(r.packages)
	return r
}

// source says how an image is made, for people; equal recipes say the same.
func (r recipe) source() string {
	plain, ok := recipeNamed(r.name)
	s := "mmdebstrap " + r.suite
	if !ok {
		return s
	}
	var more []string
	for _, p := range r.packages {
		if !slices.Contains(plain.packages, p) {
			more = append(more, p)
		}
	}
	if len(more) > 0 {
		s += " with " + strings.Join(more, " ")
	}
	return s
}

// packagePattern takes NAME, NAME:ARCH, NAME=VERSION and NAME/SUITE, and nothing that mmdebstrap or apt reads as an
// option, a list or a search term.
var packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?([=/][A-Za-z0-9.+:~-]+)?$`)

func validatePackages(packages []string) error {
	for _, p := range packages {
		if !packagePattern.MatchString(p) || strings.HasSuffix(p, "-") || strings.HasSuffix(p, "+") && strings.ContainsAny(p, "=/") {
			return vm.Errorf(vm.CodeInvalid, "%q is not the name of a Debian package", p).WithHint("NAME, NAME=VERSION or NAME/SUITE, without spaces")
		}
	}
	return nil
}

// validateMirror takes an http(s) or file URL, or lines as in sources.list.
func validateMirror(mirror string) error {
	for line := range strings.Lines(mirror) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "deb "):
		case strings.ContainsAny(line, " \t"),
			!strings.HasPrefix(line, "http://") && !strings.HasPrefix(line, "https://") && !strings.HasPrefix(line, "file:/"):
			return vm.Errorf(vm.CodeInvalid, "%q is not a Debian mirror", line).
				WithHint("a URL such as http://deb.debian.org/debian, or lines such as: deb http://deb.debian.org/debian bookworm main")
		}
	}
	return nil
}
