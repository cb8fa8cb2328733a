package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	maxLines     = 400 // of a file that is no test: the god file of the peers was always one round the domain object
	maxMainLines = 15  // of code in a main.go: a main that does something cannot be tested
)

// source is one Go file, parsed.
type source struct {
	path string // below the repository, with slashes
	text []byte
	fset *token.FileSet
	file *ast.File
}

func parse(path string, text []byte) (source, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, text, parser.ParseComments)
	return source{path, text, fset, f}, err
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

var statement = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE FROM|CREATE TABLE|PRAGMA)\s`)

// faults lists what is wrong with the shape of one file that is no test.
func (s source) faults() []string {
	var v []string
	add := func(at, format string, args ...any) { v = append(v, at+": "+fmt.Sprintf(format, args...)) }

	if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
		add(s.path, "%d lines, more than %d: split it by noun", n, maxLines)
	}
	if strings.HasPrefix(s.path, "cmd/") {
		if n := codeLines(s.text); n > maxMainLines {
			add(s.path, "%d lines of code, more than %d: main only calls, so that all else can be tested", n, maxMainLines)
		}
	}
	switch name := s.file.Name.Name; name {
	case "util", "utils", "common", "helper", "helpers", "manager", "misc":
		add(s.path, "package %s says nothing: name it by the one noun it is about", name)
	}
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			add(s.at(f), "func init runs unasked: construct it where it is wired, in the daemon")
		}
	}
	inStore := strings.HasPrefix(s.path, "internal/store/")
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" {
				add(s.at(n), "time.Sleep: wait for the event (pidfd, inotify, poll, a channel), or for a timer and ctx together")
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "panic" {
				add(s.at(n), "panic: return an error that says what was being done to what")
			}
			if logged(n, "vm") && !logged(n, "id") {
				add(s.at(n), "a line of the log about a VM without its id: 'banger vm logs --daemon' finds it by that")
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && !inStore && statement.MatchString(strings.Trim(n.Value, "`\"")) {
				add(s.at(n), "SQL outside internal/store: all of it is in one package")
			}
		}
		return true
	})
	return v
}

// logged says whether a call writes this key to the daemon's log.
func logged(call *ast.CallExpr, key string) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !level.MatchString(f.Sel.Name) {
		return false
	}
	if x, ok := f.X.(*ast.SelectorExpr); !ok || x.Sel.Name != "Log" {
		return false
	}
	for _, arg := range call.Args {
		if l, ok := arg.(*ast.BasicLit); ok && l.Value == strconv.Quote(key) {
			return true
		}
	}
	return false
}

var level = regexp.MustCompile(`^(Debug|Info|Warn|Error)$`)

// codeLines counts lines that are neither blank nor a comment.
func codeLines(text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, []byte("//")) {
			n++
		}
	}
	return n
}

func TestSource(t *testing.T) {
	root := filepath.Join("..", "..")
	comments := map[string][]string{} // directory → files with a package comment
	for _, top := range []string{"cmd", "internal", "scripts"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return fs.SkipDir
			}
			if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			s, err := parse(filepath.ToSlash(rel), text)
			if err != nil {
				return err
			}
			for _, f := range s.faults() {
				t.Error(f)
			}
			dir := filepath.Dir(rel)
			if s.file.Doc != nil {
				comments[dir] = append(comments[dir], rel)
			} else if _, ok := comments[dir]; !ok {
				comments[dir] = nil
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments %v, want one that says what the package is for and what it must not do", dir, len(files), files)
		}
	}
}

// TestFaultsAreFound gives each rule a file that breaks it, and all of them one that does not.
func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct{ path, text, want string }{
		{"internal/x/x.go", "package x\n", ""},
		{"internal/x/x.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "time.Sleep"},
		{"internal/x/x.go", "package x\nfunc init() {}\n", "func init"},
		{"internal/x/x.go", "package x\ntype t int\nfunc (t) init() {}\n", ""},
		{"internal/x/x.go", "package x\nfunc f() { panic(1) }\n", "panic"},
		{"internal/x/x.go", "package x\nfunc f(e t) { e.Log.Warn(\"sick\", \"vm\", e.name) }\n", "without its id"},
		{"internal/x/x.go", "package x\nfunc f(e t) { e.Log.Warn(\"sick\", \"vm\", e.name, \"id\", e.id); e.Log.Info(\"up\") }\n", ""},
		{"internal/x/x.go", "package util\n", "package util"},
		{"internal/x/x.go", "package x\nconst q = `\n\tSELECT id FROM vms`\n", "SQL"},
		{"internal/store/x.go", "package x\nconst q = `SELECT id FROM vms`\n", ""},
		{"internal/x/x.go", "package x\n" + strings.Repeat("//\n", maxLines), "lines"},
		{"cmd/x/main.go", "package main\n" + strings.Repeat("var _ = 1\n", maxMainLines), "main only calls"},
		{"cmd/x/main.go", "package main\n" + strings.Repeat("// why\n", maxMainLines), ""},
	} {
		s, err := parse(c.path, []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(s.faults(), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("faults of %.60q in %s = %q, want one about %q", c.text, c.path, got, c.want)
		}
	}
}
