package crashtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"
)

// sources are the program's own files, by package, and what names in them stand for.
type sources struct {
	fset *token.FileSet
	pkgs map[string]*sourcePackage // by import path
}

type sourcePackage struct {
	path   string
	files  []*ast.File
	consts map[string]string         // of the package
	fields map[string][]placedString // of its structs: what a literal gives a field
}

// placedString is an expression of which a string comes, and where it stands.
type placedString struct {
	file *ast.File
	fn   *ast.FuncDecl
	expr ast.Expr
}

// readSources parses what the two programs are built from.
func readSources(t *testing.T) *sources {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if eq .Module.Path "banger"}}{{$d := .Dir}}{{$p := .ImportPath}}{{range .GoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}{{end}}{{end}}`, "banger/cmd/banger", "banger/cmd/bangerd").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	s := newSources()
	for line := range strings.Lines(string(out)) {
		if pkg, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if err := s.add(pkg, file, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func newSources() *sources { return &sources{token.NewFileSet(), map[string]*sourcePackage{}} }

func (s *sources) add(pkg, name string, content any) error {
	f, err := parser.ParseFile(s.fset, name, content, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p := s.pkgs[pkg]
	if p == nil {
		p = &sourcePackage{path: pkg, consts: map[string]string{}, fields: map[string][]placedString{}}
		s.pkgs[pkg] = p
	}
	p.files = append(p.files, f)
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, spec := range g.Specs {
				v, _ := spec.(*ast.ValueSpec)
				for i, n := range v.Names {
					if i < len(v.Values) {
						if text, ok := literal(v.Values[i]); ok {
							p.consts[n.Name] = text
						}
					}
				}
			}
		}
	}
	return nil
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// functions calls f with each function of the program.
func (s *sources) functions(f func(*sourcePackage, *ast.File, *ast.FuncDecl)) {
	for _, p := range s.pkgs {
		for _, file := range p.files {
			for _, d := range file.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					f(p, file, fn)
				}
			}
		}
	}
}

// imported is the package that a name stands for in a file; empty = it is no package.
func imported(f *ast.File, name string) string {
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if is := path.Base(p); i.Name == nil && is == name || i.Name != nil && i.Name.Name == name {
			return p
		}
	}
	return ""
}

// calls are the calls of a function of a package, or of a method of that name on something of the package's own.
func (s *sources) calls(pkg, name string, f func(*sourcePackage, *ast.File, *ast.FuncDecl, *ast.CallExpr)) {
	s.functions(func(p *sourcePackage, file *ast.File, fn *ast.FuncDecl) {
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch to := c.Fun.(type) {
			case *ast.Ident:
				ok = p.path == pkg && to.Name == name
			case *ast.SelectorExpr:
				from := ""
				if x, is := to.X.(*ast.Ident); is {
					from = imported(file, x.Name)
				}
				ok = to.Sel.Name == name && (from == pkg || from == "" && p.path == pkg)
			default:
				ok = false
			}
			if ok {
				f(p, file, fn, c)
			}
			return true
		})
	})
}

const actPackage = "banger/internal/act"

// kinds are the objects of all acts, each with where it is named. A kind that this cannot follow to a constant is an error.
func (s *sources) kinds() (found map[string]string, errs []error) {
	found = map[string]string{}
	for _, name := range []string{"Do", "Record"} {
		s.calls(actPackage, name, func(p *sourcePackage, file *ast.File, fn *ast.FuncDecl, c *ast.CallExpr) {
			if len(c.Args) < 2 {
				return
			}
			texts, err := s.strings(p, placedString{file, fn, c.Args[1]}, 0)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.fset.Position(c.Pos()), err))
			}
			for _, text := range texts {
				found[text] = s.fset.Position(c.Pos()).String()
			}
		})
	}
	return found, errs
}

// deepest bounds how far a kind is handed down.
const deepest = 8

// strings are all that an expression can be: a constant, a sum, what a function is called with, a field of literals.
func (s *sources) strings(p *sourcePackage, e placedString, depth int) (all []string, err error) {
	if depth > deepest {
		return nil, fmt.Errorf("a kind of object is handed down too far to follow")
	}
	if text, ok := literal(e.expr); ok {
		return []string{text}, nil
	}
	switch x := e.expr.(type) {
	case *ast.BinaryExpr:
		left, err := s.strings(p, placedString{e.file, e.fn, x.X}, depth+1)
		if err != nil {
			return nil, err
		}
		right, err := s.strings(p, placedString{e.file, e.fn, x.Y}, depth+1)
		for _, l := range left {
			for _, r := range right {
				all = append(all, l+r)
			}
		}
		return all, err
	case *ast.Ident:
		if i := parameter(e.fn, x.Name); i >= 0 {
			if e.fn.Recv != nil && e.fn.Name.IsExported() {
				return nil, fmt.Errorf("%s is a method that others may call: a kind of object is handed down by functions", e.fn.Name.Name)
			}
			return s.arguments(p, e.fn.Name.Name, i, depth)
		}
		if text, ok := p.consts[x.Name]; ok {
			return []string{text}, nil
		}
	case *ast.SelectorExpr:
		if i, ok := x.X.(*ast.Ident); ok {
			if from := s.pkgs[imported(e.file, i.Name)]; from != nil {
				if text, ok := from.consts[x.Sel.Name]; ok {
					return []string{text}, nil
				}
			}
		}
		return s.field(p, x.Sel.Name, depth)
	}
	return nil, fmt.Errorf("what kind of object this is cannot be followed to a constant: name it by one")
}

// parameter is the place of a function's parameter; -1 = it has none of that name.
func parameter(fn *ast.FuncDecl, name string) int {
	n := 0
	for _, f := range fn.Type.Params.List {
		for _, i := range f.Names {
			if i.Name == name {
				return n
			}
			n++
		}
	}
	return -1
}

// arguments are what a function is called with at that place.
func (s *sources) arguments(p *sourcePackage, name string, place, depth int) (all []string, err error) {
	s.calls(p.path, name, func(from *sourcePackage, file *ast.File, fn *ast.FuncDecl, c *ast.CallExpr) {
		if place >= len(c.Args) || err != nil {
			return
		}
		var more []string
		more, err = s.strings(from, placedString{file, fn, c.Args[place]}, depth+1)
		all = append(all, more...)
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s is handed a kind of object, and nobody calls it", name)
	}
	return all, err
}

// field is what the literals of a package give a field of that name, be it named or by its place.
func (s *sources) field(p *sourcePackage, name string, depth int) (all []string, err error) {
	structs := map[string]*ast.StructType{}
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if st, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = st
				}
			}
			return true
		})
	}
	s.functions(func(of *sourcePackage, file *ast.File, fn *ast.FuncDecl) {
		if of != p {
			return
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			l, ok := n.(*ast.CompositeLit)
			if !ok || l.Type == nil {
				return true
			}
			for _, e := range given(structs, l, l.Type, name) {
				more, ferr := s.strings(p, placedString{file, fn, e}, depth+1)
				if err == nil {
					err = ferr
				}
				all = append(all, more...)
			}
			return true
		})
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no literal of the package gives %s a constant", name)
	}
	return all, err
}

// given are the values of a field in a literal of a struct that has it, or of a list of such.
func given(structs map[string]*ast.StructType, l *ast.CompositeLit, typ ast.Expr, name string) (all []ast.Expr) {
	switch x := typ.(type) {
	case *ast.ArrayType:
		for _, e := range l.Elts {
			if inner, ok := e.(*ast.CompositeLit); ok && inner.Type == nil {
				all = append(all, given(structs, inner, x.Elt, name)...)
			}
		}
		return all
	case *ast.Ident:
		if structs[x.Name] == nil {
			return nil
		}
		typ = structs[x.Name]
	}
	st, ok := typ.(*ast.StructType)
	if !ok {
		return nil
	}
	place := parameter(&ast.FuncDecl{Type: &ast.FuncType{Params: st.Fields}}, name)
	for i, e := range l.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if k, ok := kv.Key.(*ast.Ident); ok && place >= 0 && k.Name == name {
				all = append(all, kv.Value)
			}
		} else if i == place {
			all = append(all, e)
		}
	}
	return all
}
