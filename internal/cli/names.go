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

// expand puts the names of VMs in the place of the patterns that they match, and tells the ids of these. A pattern that
// none matches is an error, as a name that none has.
func expand(ctx context.Context, c *client.Client, names []string) (out []string, ids map[string]vm.ID, err error) {
	if !slices.ContainsFunc(names, isPattern) {
		return once(names), nil, nil
	}
	for _, n := range names {
		if err := checkPattern(n); err != nil {
			return nil, nil, err
		}
	}
	summaries, err := c.Summaries(ctx)
	if err != nil {
		return nil, nil, err
	}
	var all []string
	ids = map[string]vm.ID{}
	patterns := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !isPattern(n) })
	for _, r := range summaries {
		all = append(all, r.Name)
		if matches(patterns, r.Name) {
			ids[r.Name] = r.ID
		}
	}
	out, err = choose(names, all, "VM", "vm")
	return out, ids, err
}

// choose puts those of all in the place of the patterns that they match. What they are, and the command group that lists
// them, are for the error where there are none.
func choose(names, all []string, what, group string) (out []string, err error) {
	for _, n := range names {
		if !isPattern(n) {
			out = append(out, n)
			continue
		}
		found := false
		for _, name := range all {
			if matches([]string{n}, name) {
				out, found = append(out, name), true
			}
		}
		if !found {
			return nil, vm.Errorf(vm.CodeNotFound, "no %s's name matches %q", what, n).WithHint("banger %s list shows those there are", group)
		}
	}
	return once(out), nil
}

// filter selects VMs. Of patterns of one key any may match, of keys all must.
type filter struct {
	fields map[string][]string // patterns, by filterKeys
	labels map[string][]string // patterns of values, by the label's key
}

// filterKeys are what VMs can be selected by, beside labels.
var filterKeys = map[string]func(api.VMSummary) string{
	"name":  func(r api.VMSummary) string { return r.Name },
	"state": func(r api.VMSummary) string { return string(r.State) },
	"image": func(r api.VMSummary) string { return r.Image },
	"vmm":   func(r api.VMSummary) string { return r.VMM },
}

// parseFilter reads KEY=PATTERN words, and patterns of names.
func parseFilter(words, names []string) (filter, error) {
	f := filter{fields: map[string][]string{"name": names}, labels: map[string][]string{}}
	check := slices.Clone(names)
	for _, w := range words {
		key, pattern, ok := strings.Cut(w, "=")
		switch {
		case ok && key == "label":
			label, value, given := strings.Cut(pattern, "=")
			if !given {
				value = "*" // whatever it is
			}
			f.labels[label] = append(f.labels[label], value)
			check = append(check, value)
		case ok && key == "state" && !isPattern(pattern) && !slices.Contains(vm.States(), vm.State(pattern)):
			return filter{}, vm.Errorf(vm.CodeInvalid, "filter %q: no VM is ever in that state", w).
				WithHint("it is one of %s", stateWords(vm.States()))
		case ok && filterKeys[key] != nil:
			f.fields[key] = append(f.fields[key], pattern)
			check = append(check, pattern)
		default:
			return filter{}, vm.Errorf(vm.CodeInvalid, "filter %q: want KEY=VALUE, KEY one of image, label, name, state, vmm", w).
				WithHint("for example: --filter state=running")
		}
	}
	for _, pattern := range check {
		if err := checkPattern(pattern); err != nil {
			return filter{}, err
		}
	}
	return f, nil
}

func (f filter) takes(r api.VMSummary) bool {
	for key, patterns := range f.fields {
		if len(patterns) > 0 && !matches(patterns, filterKeys[key](r)) {
			return false
		}
	}
	for key, patterns := range f.labels {
		if value, ok := r.Labels[key]; !ok || !matches(patterns, value) {
			return false
		}
	}
	return true
}

// matches says whether one of the patterns is all of value. Unlike in a path, / is a letter like others.
func matches(patterns []string, value string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(strings.ReplaceAll(p, "/", "\x00"), strings.ReplaceAll(value, "/", "\x00"))
		return ok
	})
}

func stateWords(states []vm.State) string {
	var w []string
	for _, s := range states {
		w = append(w, string(s))
	}
	return strings.Join(w, ", ")
}
