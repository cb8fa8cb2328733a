package testhost

import (
	"os"
	"strings"
	"testing"
)

type run func() int

func (r run) Run() int { return r() }

// What a program told of a race fails the tests that started it, though each of them has passed.
func TestRacesAreFound(t *testing.T) {
	told := func(text string) run {
		return func() int {
			_, log, _ := strings.Cut(os.Getenv(RaceEnv), "log_path=")
			if text != "" {
				if err := os.WriteFile(log+".123", []byte(text), 0o600); err != nil {
					t.Error(err)
				}
			}
			return 0
		}
	}
	for text, want := range map[string]int{"": 0, "WARNING: DATA RACE\n": 1} {
		t.Setenv(RaceEnv, "halt_on_error=0")
		if got := Races(told(text)).Run(); got != want {
			t.Errorf("%q told: the run ends with %d, want %d", text, got, want)
		}
		if env := os.Getenv(RaceEnv); !strings.HasPrefix(env, "halt_on_error=0 atexit_sleep_ms=0 log_path=") {
			t.Errorf("programs get %s=%q", RaceEnv, env)
		}
	}
	if code := Races(run(func() int { return 2 })).Run(); code != 2 {
		t.Errorf("tests that failed end with %d", code)
	}
}
