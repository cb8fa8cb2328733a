package engine

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"banger/internal/vm"
)

// What becomes of a VM is in the daemon's log, each line with the VM's id.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t)
	w.log = &log
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	must(t, w.host.Exit(p, "signal: killed"))
	d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	d.kill() // nobody writes any more

	var got []string
	lines := regexp.MustCompile(`msg="?([^"]*?)"? vm=web id=` + string(r.ID) + `(.*)`)
	for line := range strings.Lines(log.String()) {
		if m := lines.FindStringSubmatch(line); m != nil {
			got = append(got, m[1]+m[2])
		}
	}
	want := `recorded want=running state=starting
recorded want=running state=running
recorded want=stopped state=stopped error="its VMM ended: signal: killed"`
	all := strings.Join(got, "\n")
	if !strings.HasPrefix(all, want) || !strings.HasSuffix(all, "\ngone") {
		t.Errorf("of the VM it says\n%s\nof\n%s", all, log.String())
	}
}
