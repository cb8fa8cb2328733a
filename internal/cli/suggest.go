package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/vm"
)

// meant are those of words that were probably meant by word: those that it is the beginning of, else the nearest.
func meant(word string, words []string) []string {
	if len(word) > 1 { // one letter begins too many
		begun := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, word) })
		if len(begun) > 0 {
			return begun
		}
	}
	if near := vm.Nearest(word, words); near != "" {
		return []string{near}
	}
	return nil
}

// meantCommands are the whole names of the commands that were probably meant by a word behind cmd. At the root the word may be
// one of a group's: of the VMs', as with Docker, before the others', whose words count only as they are. So do the root's in a group.
func meantCommands(cmd *cobra.Command, word string) []string {
	places := []*cobra.Command{cmd}
	if cmd.HasParent() {
		places = append(places, cmd.Root())
	}
	for _, group := range cmd.Commands() {
		at := len(places)
		if group.Name() == "vm" {
			at = 1
		}
		places = slices.Insert(places, at, group)
	}
	var words, found []string
	paths := map[string]string{}
	for _, place := range places {
		near := place == cmd || place.Name() == "vm"
		for _, sub := range place.Commands() {
			if !sub.IsAvailableCommand() {
				continue
			}
			if slices.Contains(sub.SuggestFor, word) {
				return []string{sub.CommandPath()}
			}
			for _, name := range append([]string{sub.Name()}, sub.Aliases...) {
				path := place.CommandPath() + " " + name
				switch {
				case name == word && near:
					return []string{path}
				case name == word:
					found = append(found, path)
				case near && paths[name] == "":
					words, paths[name] = append(words, name), path
				}
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	for _, w := range meant(word, words) {
		found = append(found, paths[w])
	}
	return found
}
