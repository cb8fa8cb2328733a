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
// one of a group's: of the VMs', as with Docker, before the others'.
func meantCommands(cmd *cobra.Command, word string) []string {
	places := []*cobra.Command{cmd}
	if !cmd.HasParent() {
		subs := slices.Clone(cmd.Commands())
		slices.SortStableFunc(subs, func(a, b *cobra.Command) int { return byVM(a) - byVM(b) })
		places = append(places, slices.DeleteFunc(subs, func(c *cobra.Command) bool { return !c.HasSubCommands() })...)
	}
	var exact, words []string
	paths := map[string]string{}
	for i, place := range places {
		for _, sub := range place.Commands() {
			if !sub.IsAvailableCommand() {
				continue
			}
			if slices.Contains(sub.SuggestFor, word) {
				return []string{sub.CommandPath()}
			}
			for _, name := range append([]string{sub.Name()}, sub.Aliases...) {
				path := place.CommandPath() + " " + name
				if name == word && place.Name() == "vm" {
					return []string{path}
				}
				if name == word {
					exact = append(exact, path)
				}
				if _, known := paths[name]; !known && (i == 0 || place.Name() == "vm") {
					words, paths[name] = append(words, name), path
				}
			}
		}
	}
	if len(exact) > 0 {
		return exact
	}
	for _, w := range meant(word, words) {
		exact = append(exact, paths[w])
	}
	return exact
}

// byVM puts the group of the VMs first.
func byVM(cmd *cobra.Command) int {
	if cmd.Name() == "vm" {
		return 0
	}
	return 1
}
