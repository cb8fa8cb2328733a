package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"banger/internal/vm"
)

// maxEnvLine bounds a line of an environment file: the kernel takes 128 KiB for a variable.
const maxEnvLine = 1 << 20

// readEnvFile reads a file as Docker's --env-file: KEY=VALUE a line, the value as it stands, with quotes and spaces; KEY
// alone takes the value it has here, and is left out where it has none. Lines of # and empty ones are skipped.
func readEnvFile(path string) (env []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, vm.Errorf(vm.CodeInvalid, "read environment file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxEnvLine)
	n := 0
	for lines.Scan() {
		n++
		line := lines.Bytes()
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		kv, err := envLine(line)
		if err != nil {
			return nil, vm.Errorf(vm.CodeInvalid, "%s:%d: %w", path, n, err).WithHint("a line is KEY=VALUE, KEY alone for the value it has here, or a # comment")
		}
		if kv != "" {
			env = append(env, kv)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, vm.Errorf(vm.CodeInvalid, "%s:%d: the line has more than %d bytes", path, n+1, maxEnvLine)
	case err != nil:
		return nil, vm.Errorf(vm.CodeInvalid, "read environment file %s: %w", path, err)
	}
	return env, nil
}

// envLine is KEY=VALUE of a line; "" where there is nothing to set.
func envLine(b []byte) (string, error) {
	switch {
	case !utf8.Valid(b):
		return "", errors.New("it is not UTF-8")
	case bytes.IndexByte(b, 0) >= 0:
		return "", errors.New("it has a NUL byte, which no variable can hold")
	}
	line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
	if line == "" || line[0] == '#' {
		return "", nil
	}
	key, _, has := strings.Cut(line, "=")
	switch {
	case key == "":
		return "", errors.New("there is no name before the '='")
	case strings.ContainsFunc(key, unicode.IsSpace):
		return "", fmt.Errorf("the name %q has a space in it", key)
	case has:
		return line, nil
	}
	return fromHere(key), nil
}

// fromHere is KEY=VALUE with the value that a variable has in our own environment; "" where it has none, as with Docker.
func fromHere(key string) string {
	value, ok := os.LookupEnv(key)
	if !ok {
		return ""
	}
	return key + "=" + value
}
