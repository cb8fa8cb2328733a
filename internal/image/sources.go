package image

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// source is one package source of apt: the cross product of its URIs and suites.
type source struct {
	types      []string
	uris       []string
	suites     []string
	components []string
	archs      []string // none: all
	signedBy   string   // path of a keyring, a fingerprint, or the start of a key block; "": any key apt trusts
	disabled   bool
}

// hostSources reads how apt is configured on the host, from its directory (/etc/apt). What cannot be read is passed
// over: the mirrors are only a preference.
func hostSources(etc fs.FS) []source {
	var all []source
	if b, err := fs.ReadFile(etc, "sources.list"); err == nil {
		all = append(all, parseOneLine(string(b))...)
	}
	entries, err := fs.ReadDir(etc, "sources.list.d")
	if err != nil {
		return all
	}
	for _, e := range entries { // sorted by name, as apt reads them
		b, err := fs.ReadFile(etc, path.Join("sources.list.d", e.Name()))
		if err != nil {
			continue
		}
		switch path.Ext(e.Name()) {
		case ".list":
			all = append(all, parseOneLine(string(b))...)
		case ".sources":
			all = append(all, parseDeb822(string(b))...)
		}
	}
	return all
}

// parseOneLine reads the format of sources.list, sources.list(5): TYPE [ OPTION=VALUE… ] URI SUITE COMPONENT…
func parseOneLine(text string) []source {
	var all []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		typ, rest, ok := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		if !ok {
			continue
		}
		s := source{types: []string{typ}}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, closed := strings.Cut(rest[1:], "]")
			if !closed {
				continue
			}
			s.readOptions(options)
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		s.uris, s.suites, s.components = f[:1], f[1:2], f[2:]
		all = append(all, s)
	}
	return all
}

func (s *source) readOptions(options string) {
	for _, o := range strings.Fields(options) {
		key, value, _ := strings.Cut(o, "=")
		switch strings.ToLower(key) {
		case "signed-by":
			s.signedBy = value
		case "arch":
			s.archs = strings.Split(value, ",")
		}
	}
}

// parseDeb822 reads the format of *.sources: stanzas of "Field: value", continued by lines that begin with a blank.
func parseDeb822(text string) []source {
	var all []source
	var s source
	var field string
	seen := false
	end := func() {
		if seen {
			all = append(all, s)
		}
		s, field, seen = source{}, "", false
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			s.set(field, line)
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			field, seen = strings.ToLower(strings.TrimSpace(name)), true
			s.set(field, value)
		}
	}
	end()
	return all
}

// set adds a field's value, or what continues it.
func (s *source) set(field, value string) {
	words := strings.Fields(value)
	switch field {
	case "types":
		s.types = append(s.types, words...)
	case "uris":
		s.uris = append(s.uris, words...)
	case "suites":
		s.suites = append(s.suites, words...)
	case "components":
		s.components = append(s.components, words...)
	case "architectures":
		s.archs = append(s.archs, words...)
	case "signed-by":
		if s.signedBy == "" {
			s.signedBy = strings.TrimSpace(value)
		}
	case "enabled":
		s.disabled = strings.EqualFold(strings.TrimSpace(value), "no")
	}
}

// debianLines picks what is Debian's own for a suite, its updates and its security fixes, as lines for the image's
// sources.list. None when the suite itself is not there: then mmdebstrap's defaults are better than a part.
func debianLines(sources []source, suite, arch string) []string {
	var lines []string
	hasSuite := false
	for _, s := range sources {
		if s.disabled || !slices.Contains(s.types, "deb") || !s.isDebians() || len(s.archs) > 0 && !slices.Contains(s.archs, arch) {
			continue
		}
		for _, uri := range s.uris {
			if !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") {
				continue // means nothing inside a guest: cdrom:, file:, mirror+file:
			}
			for _, name := range s.suites {
				if name != suite && name != suite+"-updates" && name != suite+"-security" {
					continue
				}
				hasSuite = hasSuite || name == suite && slices.Contains(s.components, "main")
				line := "deb " + uri + " " + name + " " + strings.Join(s.components, " ")
				if !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
			}
		}
	}
	if !hasSuite {
		return nil
	}
	return lines
}

// isDebians tells Debian's archive from others that use its suites' names. An entry that names its keyring is told by
// that; one that does not, by the shape of the archive.
func (s source) isDebians() bool {
	components := len(s.components) > 0
	for _, c := range s.components {
		components = components && slices.Contains([]string{"main", "contrib", "non-free", "non-free-firmware"}, c)
	}
	if !components {
		return false
	}
	if s.signedBy != "" {
		return strings.HasPrefix(path.Base(s.signedBy), "debian-archive-")
	}
	return slices.ContainsFunc(s.uris, func(uri string) bool {
		return slices.ContainsFunc(strings.Split(uri, "/"), func(e string) bool { return e == "debian" || e == "debian-security" })
	})
}
