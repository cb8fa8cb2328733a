package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestStateWord(t *testing.T) {
	for _, c := range []struct {
		state     vm.State
		lastError string
		want      string
	}{
		{vm.StateRunning, "", "running"},
		{vm.StateRunning, "its system disk waits", "running"},
		{vm.StateStopped, "its VMM ended", "stopped"},
		{vm.StateRemoving, "", "removing"},
		{vm.StateRemoving, "detach the system disk: device busy", "removing: detach the system disk: device busy"},
		{vm.StateStopping, "detach\nthe  disk", "stopping: detach the disk"},
		{vm.StateRemoving, strings.Repeat("ä", 100), "removing: " + strings.Repeat("ä", 79) + "…"},
	} {
		if got := stateWord(time.Now(), api.VMSummary{State: c.state, LastError: c.lastError}); got != c.want {
			t.Errorf("%s, %q: %q, want %q", c.state, c.lastError, got, c.want)
		}
	}
}

func TestSilenceIsShown(t *testing.T) {
	now := time.Now()
	for state, want := range map[vm.State]string{vm.StateRunning: "running (guest silent for 40 seconds)", vm.StateStopped: "stopped"} {
		if got := stateWord(now, api.VMSummary{State: state, Silent: now.Add(-40 * time.Second)}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	v := api.VMView{VMRecord: vm.VMRecord{State: vm.StateRunning}, Observed: vm.Observed{Ready: true, Silent: now.Add(-2 * time.Second)}}
	if got := stateLine(now, v); got != "running, but its guest has not answered for 2 seconds" {
		t.Errorf("%q", got)
	}
}

func TestShowTellsOfFailures(t *testing.T) {
	now := time.Now()
	since := now.Add(-3 * time.Minute)
	for name, c := range map[string]struct {
		r    vm.VMRuntime
		want []string
		not  string
	}{
		"none":            {vm.VMRuntime{}, nil, "Last error"},
		"over":            {vm.VMRuntime{LastError: "its VMM ended", LastErrorAt: since}, []string{"its VMM ended", "3 minutes ago"}, "Next try"},
		"tried again":     {vm.VMRuntime{LastError: "busy", LastErrorAt: since, Attempts: 4, RetryAt: now.Add(8 * time.Second)}, []string{"busy", "3 minutes ago, 4 failed so far", "Next try:", "in 8 seconds"}, ""},
		"about to be":     {vm.VMRuntime{LastError: "busy", LastErrorAt: since, Attempts: 1, RetryAt: now.Add(-time.Second)}, []string{"Next try:", "now"}, "ago in"},
		"of an old state": {vm.VMRuntime{LastError: "busy"}, []string{"busy"}, "Since"},
	} {
		var out bytes.Buffer
		if err := viewTable(now, api.VMView{VMRecord: vm.VMRecord{Runtime: c.r}}).write(&out); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: no %q in\n%s", name, w, &out)
			}
		}
		if c.not != "" && strings.Contains(out.String(), c.not) {
			t.Errorf("%s: %q in\n%s", name, c.not, &out)
		}
	}
}
