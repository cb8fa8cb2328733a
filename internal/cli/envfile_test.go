package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func envFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEnvFile(t *testing.T) {
	t.Setenv("BANGER_TEST_HERE", "a b")
	if err := os.Unsetenv("BANGER_TEST_NOT_HERE"); err != nil {
		t.Fatal(err)
	}
	got, err := readEnvFile(envFile(t, "\ufeff# comment\n\n  A=1\nB=\"x y\" # stays \nBANGER_TEST_HERE\nBANGER_TEST_NOT_HERE\nC=\r\n\t# another\nD==e=\nLAST=no end"))
	want := []string{"A=1", `B="x y" # stays `, "BANGER_TEST_HERE=a b", "C=", "D==e=", "LAST=no end"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for text, words := range map[string]string{
		"A=1\n=2\n":           ":2: there is no name",
		"# x\n\nexport A=1\n": `:3: the name "export A" has a space`,
		"two words\n":         ":1: the name",
		"A=\xff\n":            ":1: it is not UTF-8",
		"A=a\x00b\n":          ":1: it has a NUL",
		"A=1\nB=" + strings.Repeat("x", maxEnvLine): ":2: the line has more than",
	} {
		if got, err := readEnvFile(envFile(t, text)); err == nil || !strings.Contains(err.Error(), words) || got != nil {
			t.Errorf("%.20q: %q, %v; want %q", text, got, err, words)
		}
	}
	if _, err := readEnvFile(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := readEnvFile(t.TempDir()); err == nil {
		t.Error("a directory is read")
	}
}

// FuzzEnvLine: what comes of a line is a variable that a process can be given.
func FuzzEnvLine(f *testing.F) {
	f.Add("A=1")
	f.Add(" # x")
	f.Add("HOME")
	f.Add("a b=c")
	f.Fuzz(func(t *testing.T, line string) {
		kv, err := envLine([]byte(line))
		if err != nil || kv == "" {
			return
		}
		key, _, ok := strings.Cut(kv, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t\x00") || strings.Contains(kv, "\x00") {
			t.Errorf("%q became %q", line, kv)
		}
	})
}
