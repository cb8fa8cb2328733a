package sshconfig

import (
	"fmt"
	"strings"
)

// The block's lines in the user's configuration. What is between them is replaced without a look.
const (
	begin = "# BEGIN banger: made by 'banger ssh-config --install', removed by 'banger ssh-config --uninstall'"
	made  = "# (there was no config before)" // the second line where this is so
	end   = "# END banger"
)

// block is what includes the file, with its line end.
func block(file string, created bool) string {
	lines := []string{begin}
	if created {
		lines = append(lines, made)
	}
	return strings.Join(append(lines, "Include "+includeWord(file), end, ""), "\n")
}

// includeWord quotes a path for Include, whose words are glob(7) patterns with no %-tokens.
func includeWord(path string) string {
	escaped := strings.NewReplacer(`\`, `\\\\`, `"`, `\"`, "*", `\\*`, "?", `\\?`, "[", `\\[`).Replace(path)
	return `"` + escaped + `"`
}

// found is what a configuration has of ours.
type found struct {
	rest    string // the configuration without the block, byte for byte
	block   string // empty = there is none
	created bool   // the block says that there was no configuration before
}

// look takes a configuration apart. One whose block has no end, or that has several, is somebody else's affair: where ours
// ends in it is not known.
func look(config string) (found, error) {
	f := found{rest: config}
	first := lineAt(config, begin, 0)
	if first < 0 {
		if at := lineAt(config, end, 0); at >= 0 {
			return f, fmt.Errorf("line %d ends banger's block, and no line begins it", lineNumber(config, at))
		}
		return f, nil
	}
	last := lineAt(config, end, first)
	if last < 0 {
		return f, fmt.Errorf("banger's block begins on line %d and has no end", lineNumber(config, first))
	}
	stop := last + len(end)
	if stop < len(config) { // its line end: \n by construction, lineAt has looked
		stop++
	}
	f.block, f.rest = config[first:stop], config[:first]+config[stop:]
	f.created = strings.HasPrefix(f.block, begin+"\n"+made+"\n")
	if again := lineAt(config, begin, first+1); again >= 0 {
		return f, fmt.Errorf("banger's block begins on line %d, and once more on line %d", lineNumber(config, first), lineNumber(config, again))
	}
	return f, nil
}

// lineAt is where the first whole line that reads so begins, at from or after it; -1 = nowhere.
func lineAt(s, line string, from int) int {
	for i := from; i <= len(s)-len(line); i++ {
		at := strings.Index(s[i:], line)
		if at < 0 {
			return -1
		}
		i += at
		if (i == 0 || s[i-1] == '\n') && (i+len(line) == len(s) || s[i+len(line)] == '\n') {
			return i
		}
	}
	return -1
}

func lineNumber(s string, at int) int { return 1 + strings.Count(s[:at], "\n") }
