package crashtest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// OffsetEnv says which points a crash test takes that takes some of them only: another number, others. Such a test prints it.
const OffsetEnv = "BANGER_CRASH_OFFSET"

// Offset is what the environment says. Where it says nothing, it follows from the commit that repo is at: the runs of one
// commit take the same points, those of the next ones others, until all have had their turn. Without a commit it is 0.
func Offset(repo string) (int, error) {
	if text := os.Getenv(OffsetEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%s=%s: want a number of at least 0", OffsetEnv, text)
		}
		return n, nil
	}
	out, err := exec.Command("git", "-C", repo, "rev-parse", "HEAD").Output()
	if err != nil {
		return 0, nil // no git, or an unpacked archive
	}
	return ofCommit(strings.TrimSpace(string(out))), nil
}

// ofCommit makes a number of a commit's id, which is a hash already.
func ofCommit(id string) int {
	n, err := strconv.ParseUint(id[:min(len(id), 4)], 16, 16)
	if err != nil {
		return 0
	}
	return int(n)
}
