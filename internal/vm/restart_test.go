package vm

import "testing"

func TestParseRestart(t *testing.T) {
	for s, want := range map[string]RestartPolicy{
		"": {When: RestartNo}, "no": {When: RestartNo}, "always": {When: RestartAlways}, "on-failure": {When: RestartOnFailure},
		"on-failure:1": {When: RestartOnFailure, Max: 1}, "on-failure:1000": {When: RestartOnFailure, Max: 1000},
	} {
		if got, err := ParseRestart(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"yes", "Always", "always:3", "no:1", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:1001", "on-failure:x", "on-failure:1:2", ":"} {
		if _, err := ParseRestart(bad); CodeOf(err) != CodeInvalid || HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
