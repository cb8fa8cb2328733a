package vm

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of labels.
const (
	MaxLabels     = 64
	MaxLabelKey   = 63  // bytes
	MaxLabelValue = 255 // bytes
)

var labelKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$`)

// ValidateLabels refuses labels that could not be typed, shown or selected by.
func ValidateLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return Errorf(CodeInvalid, "%d labels: a VM has at most %d", len(labels), MaxLabels)
	}
	for k, v := range labels {
		switch {
		case len(k) > MaxLabelKey || !labelKey.MatchString(k):
			return Errorf(CodeInvalid, "label %q: a key has at most %d letters, digits and . _ / -, and begins and ends with a letter or digit", k, MaxLabelKey)
		case len(v) > MaxLabelValue || !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }):
			return Errorf(CodeInvalid, "label %s: a value has at most %d bytes, all of them printable", k, MaxLabelValue)
		}
	}
	return nil
}
