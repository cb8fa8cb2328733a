package image

import (
	"regexp"
	"strings"
)

// aptOption is a line of `apt-config dump` that says how to reach mirrors: proxies, certificates, retries, and whether
// an expired archive is taken (hosts on a snapshot of the archive need that).
var aptOption = regexp.MustCompile(`^Acquire::(?:(?:http|https)::[^\s"]+|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]|Proxy-Auto-Detect) "[^"]*";$`)

// aptOptions picks the lines of `apt-config dump` that a build must share with the host.
func aptOptions(dump string) []string {
	var opts []string
	for line := range strings.Lines(dump) {
		line = strings.TrimRight(line, "\r\n")
		if aptOption.MatchString(line) && !strings.HasSuffix(line, ` "";`) {
			opts = append(opts, line)
		}
	}
	return opts
}
