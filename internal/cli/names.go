package cli

import (
	"context"
	"path"
	"slices"
	"strings"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// isPattern says whether a name stands for those that match it: no VM's name or id has these characters.
func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// checkPattern refuses a pattern that could never match.
func checkPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return vm.Errorf(vm.CodeInvalid, "pattern %q: %w", pattern, err).WithHint("* stands for any letters, ? for one, [ab] for one of these")
	}
	return nil
}

// expand puts the names of VMs in the place of the patterns that they match. A pattern that none matches is an error, as
// a name that none has.
func expand(ctx context.Context, c *client.Client, names []string) ([]string, error) {
	if !slices.ContainsFunc(names, isPattern) {
		return once(names), nil
	}
	for _, n := range names {
		if err := checkPattern(n); err != nil {
			return nil, err
		}
	}
	all, err := c.Summaries(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if !isPattern(n) {
			out = append(out, n)
			continue
		}
		found := false
		for _, r := range all {
			if ok, _ := path.Match(n, r.Name); ok {
				out, found = append(out, r.Name), true
			}
		}
		if !found {
			return nil, vm.Errorf(vm.CodeNotFound, "no VM's name matches %q", n).WithHint("banger vm list shows those there are")
		}
	}
	return once(out), nil
}

// filter selects VMs. Of values of one key any may hold, of keys all must.
type filter map[string][]string

// filterKeys are what VMs can be selected by.
var filterKeys = map[string]func(api.VMSummary) string{
	"name":  func(r api.VMSummary) string { return r.Name },
	"state": func(r api.VMSummary) string { return string(r.State) },
	"image": func(r api.VMSummary) string { return r.Image },
	"vmm":   func(r api.VMSummary) string { return r.VMM },
}

// parseFilter reads KEY=PATTERN words, and patterns of names.
func parseFilter(words, names []string) (filter, error) {
	f := filter{}
	for _, w := range words {
		key, pattern, ok := strings.Cut(w, "=")
		if _, known := filterKeys[key]; !ok || !known {
			return nil, vm.Errorf(vm.CodeInvalid, "filter %q: want KEY=VALUE, KEY one of image, name, state, vmm", w).
				WithHint("for example: --filter state=running")
		}
		f[key] = append(f[key], pattern)
	}
	f["name"] = append(f["name"], names...)
	for _, patterns := range f {
		for _, p := range patterns {
			if err := checkPattern(p); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (f filter) takes(r api.VMSummary) bool {
	for key, patterns := range f {
		value := filterKeys[key](r)
		if len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, value); return ok }) {
			return false
		}
	}
	return true
}
