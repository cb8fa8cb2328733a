package lab

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/testhost"
)

// needsOfTests are what each function of the source tree's tests names of package testhost, facilities among it, by package
// and function.
func needsOfTests(t *testing.T, repo string) map[string]map[string][]string {
	t.Helper()
	all := map[string]map[string][]string{}
	err := filepath.WalkDir(filepath.Join(repo, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repo, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := "./" + rel
		if all[pkg] == nil {
			all[pkg] = map[string][]string{}
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			var needs []string
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if of, ok := s.X.(*ast.Ident); ok && of.Name == "testhost" {
						needs = append(needs, s.Sel.Name)
					}
				}
				return true
			})
			all[pkg][f.Name.Name] = needs
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What needs what few hosts have is run in the lab or nowhere: a test that is not on its list would be skipped everywhere.
func TestWhatNeedsTheLabRunsThere(t *testing.T) {
	all := needsOfTests(t, testhost.Repo(t))
	found := 0
	for pkg, functions := range all {
		for function, needs := range functions {
			needs = slices.DeleteFunc(needs, func(n string) bool { return !slices.Contains([]string{"KVM", "DM", "Firecracker"}, n) })
			if len(needs) == 0 {
				continue
			}
			found++
			tests := extras[pkg].tests
			if !slices.Contains(suites, pkg) {
				t.Errorf("%s of %s needs %v, and the package is none of the lab's suites", function, pkg, needs)
			} else if strings.HasPrefix(function, "Test") && len(tests) > 0 && !slices.Contains(tests, function) {
				t.Errorf("%s of %s needs %v, and is none of the tests of it that the lab runs", function, pkg, needs)
			}
		}
	}
	if found < 4 { // of as many packages
		t.Errorf("found only %d functions that need the lab", found)
	}
	for pkg, more := range extras {
		for _, name := range more.tests {
			if _, ok := all[pkg][name]; !ok {
				t.Errorf("the lab is to run %s of %s, and there is none", name, pkg)
			}
		}
	}
}
