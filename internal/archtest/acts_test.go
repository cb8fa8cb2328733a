package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// changes are the functions, by import path, that change something that outlives the call: on a disk, in the kernel, or as
// a process. What is written to a file that is open belongs to the act that made the file.
var changes = map[string]*regexp.Regexp{
	"os":                             regexp.MustCompile(`^(Mkdir\w*|Rename|Remove\w*|WriteFile|Create\w*|OpenFile|Link|Symlink|L?[Cc]hown|Chmod|Truncate|Chtimes|StartProcess|CopyFS)$`),
	"os/exec":                        regexp.MustCompile(`^Command`),
	"net":                            regexp.MustCompile(`^Listen`),
	"golang.org/x/sys/unix":          kernelCalls,
	"syscall":                        kernelCalls,
	"github.com/vishvananda/netlink": regexp.MustCompile(`(Add|Del|Append|Replace|Modify|Change)$|^LinkSet`),
	"github.com/google/renameio/v2":  regexp.MustCompile(`^(WriteFile|Symlink|TempFile|NewPendingFile)$`),
	"banger/internal/host/proc":      regexp.MustCompile(`^Signal$`),
}

var kernelCalls = regexp.MustCompile(`^(Mknod|Mkdir|Rmdir|Unlink|Rename|Link|Symlink|Mount|Unmount|Kill|Tgkill|PidfdSendSignal|Fallocate|Truncate|L?[Cc]hown|Chmod|Ioctl\w*|Syscall\w*|RawSyscall\w*|Setxattr|Sethostname|Reboot|ForkExec|StartProcess)(at|At)?$`)

// asks are those of them that change nothing.
var asks = regexp.MustCompile(`^Ioctl(LoopGetStatus64|RetInt|GetInt|FileDedupeRange)$`)

// methods are names of methods that change something, whatever has them.
var methods = regexp.MustCompile(`^(Commit|CloseAtomicallyReplace|Truncate|Signal|Mkdir|MkdirAll|Symlink|RemoveAll)$`)

// withoutPoint are the functions that change something and pass no point, each with the reason. "file.go: Func", below
// the repository.
var withoutPoint = map[string]string{
	"internal/act/arm.go: Arm": "the trace of a test",
	"internal/act/arm.go: die": "what all this is for",

	"internal/daemon/log.go: open":  "the daemon's own log: nothing is decided by it",
	"internal/daemon/log.go: Write": "likewise",

	"internal/host/proc/proc.go: Signal":           "its callers know what they end, and pass the points",
	"internal/vmm/processes.go: Signal":            "likewise",
	"internal/store/store.go: createPrivate":       "called in an act",
	"internal/store/ballast.go: allocate":          "called in an act",
	"internal/host/loop/ensure.go: setUpInSteps":   "called in an act",
	"internal/host/dm/ioctl.go: call":              "questions; what changes something goes through change, which passes the points",
	"internal/host/link/tap.go: openTap":           "called in acts: a device that goes with this process until it is told to stay",
	"internal/host/nft/nft.go: run":                "its callers pass the points where it changes something",
	"internal/handles/handles.go: replace":         "its caller passes the points; what is left half-way is cleared away at the next start, by its name",
	"internal/host/ext4/ext4.go: Make":             "gives a temporary file its size, which an act publishes",
	"internal/host/ext4/ext4.go: mkfs":             "fills a temporary file, which an act publishes",
	"internal/host/ext4/repair.go: Enlarge":        "called in an act, on a file below a staging directory",
	"internal/host/ext4/repair.go: Clear":          "likewise",
	"internal/host/ext4/repair.go: run":            "likewise",
	"internal/image/import.go: convert":            "called in an act",
	"internal/host/file/copy.go: Clone":            "fills a temporary file, which an act publishes",
	"internal/host/file/copy.go: CopySparse":       "likewise",
	"internal/vmm/firecracker/jail.go: copyShared": "called in an act",
	"internal/kernel/source.go: run":               "ends what it started",
	"internal/image/bootstrap.go: hostAptOptions":  "asks apt for its configuration",
	"internal/image/userns.go: checkNamespace":     "tries whether a namespace can be made, and leaves none",
	"internal/vmm/firecracker/probe.go: Version":   "asks a program for its version",
	"internal/vmm/qemu/probe.go: tryQEMU":          "asks a program for its version",
	"internal/vmm/qemu/trial.go: trial":            "a machine without a guest that ends by itself; it makes nothing",
	"internal/vmm/prove.go: Prove":                 "a guest without a disk that the kernel ends with this process",
	"internal/vmm/spawn.go: Start":                 "built here, started by an act",
	"internal/cli/launch/launch.go: spawn":         "built here, started by an act",
	"internal/dns/dns.go: Listen":                  "called in an act",

	"internal/kernel/tree.go: newTree":             "below a staging directory, which goes as a whole",
	"internal/kernel/tree.go: setRelease":          "likewise",
	"internal/kernel/tree.go: put":                 "likewise",
	"internal/kernel/modules.go: depmod":           "likewise",
	"internal/kernel/modules.go: writeBoot":        "likewise",
	"internal/kernel/modules.go: writeModulesDisk": "likewise",
	"internal/kernel/source.go: aptDownload":       "likewise",
	"internal/kernel/file.go: writeNew":            "likewise",
	"internal/host/file/file.go: WriteNew":         "within a directory that is published as a whole",
	"internal/kernel/bzimage.go: writeVmlinux":     "likewise",
	"internal/binary/file.go: writeProgram":        "likewise",
	"internal/binary/fetch.go: download":           "likewise",
	"internal/image/root.go: format":               "called in an act",
	"internal/image/command.go: run":               "programs that work below a staging directory",
	"internal/image/command.go: prepare":           "likewise",
}

// outside are packages with no part in what the daemon keeps.
var outside = []string{
	"banger/internal/cli",             // files of the user's, in `vm cp`; programs in the user's terminal
	"banger/internal/cli/tarcopy",     // likewise
	"banger/internal/sparse",          // likewise
	"banger/internal/cli/sshconfig",   // likewise, for ssh-config
	"banger/internal/guest/agent/...", // the other side of the wire
}

// acts lists, by function, the calls of a file that change something and are in no act.
func (s source) acts() (bare map[string][]string) {
	names := map[string]string{} // by which a package is called here
	for _, i := range s.file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		name := regexp.MustCompile(`/v\d+$`).ReplaceAllString(path, "")
		name = name[strings.LastIndex(name, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = path
	}
	bare = map[string][]string{}
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			path := ""
			if x != nil && x.Obj == nil {
				path = names[x.Name]
			}
			if path == "banger/internal/act" && (sel.Sel.Name == "Do" || sel.Sel.Name == "Record") {
				return false // what is in there has its points
			}
			if changing(path, sel, call) {
				bare[f.Name.Name] = append(bare[f.Name.Name], fmt.Sprintf("%s calls %s outside of an act", s.at(call), sel.Sel.Name))
			}
			return true
		})
	}
	return bare
}

func changing(path string, sel *ast.SelectorExpr, call *ast.CallExpr) bool {
	name := sel.Sel.Name
	if path == "" {
		return methods.MatchString(name) && !soundsSo(sel)
	}
	calls := changes[path]
	if calls == nil || !calls.MatchString(name) || asks.MatchString(name) {
		return false
	}
	if path == "os" && name == "OpenFile" && len(call.Args) == 3 {
		makes := false
		ast.Inspect(call.Args[1], func(n ast.Node) bool {
			if i, ok := n.(*ast.Ident); ok && (i.Name == "O_CREATE" || i.Name == "O_TRUNC") {
				makes = true
			}
			return true
		})
		return makes
	}
	return true
}

// soundsSo tells apart what only sounds so: the Commit of our own store, which passes the points itself, and a time's Truncate.
func soundsSo(sel *ast.SelectorExpr) bool {
	if x, ok := sel.X.(*ast.SelectorExpr); ok && x.Sel.Name == "Store" {
		return true
	}
	c, ok := sel.X.(*ast.CallExpr)
	return ok && sel.Sel.Name == "Truncate" && strings.HasSuffix(fmt.Sprint(c.Fun), "UTC}")
}

func TestEveryActHasItsPoints(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if eq .Module.Path "banger"}}{{$d := .Dir}}{{$p := .ImportPath}}{{range .GoFiles}}{{$p}} {{$d}}/{{.}}
{{end}}{{end}}{{end}}`, "banger/cmd/banger", "banger/cmd/bangerd").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	files, used := 0, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		pkg, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || matchesAny(outside, pkg) {
			continue
		}
		files++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		s := source{path: filepath.ToSlash(rel), fset: fset, file: f}
		for function, calls := range s.acts() {
			key := s.path + ": " + function
			if _, ok := withoutPoint[key]; ok {
				used[key] = true
				continue
			}
			for _, c := range calls {
				t.Errorf("%s: put it into act.Do or act.Record, so that a test can crash there; or say in withoutPoint[%q] why not", c, key)
			}
		}
	}
	if files < fewest {
		t.Errorf("looked at %d files: the test looks at too little", files)
	}
	for key := range withoutPoint {
		if !used[key] {
			t.Errorf("withoutPoint[%q] excuses nothing: delete it", key)
		}
	}
}

// TestBareActsAreFound gives the test above what it is to find, and what not.
func TestBareActsAreFound(t *testing.T) {
	for body, want := range map[string]int{
		`os.Mkdir("x", 0)`: 1,
		`_ = act.Do(ctx, "x", func() error { return os.Mkdir("x", 0) })`:     0,
		`_ = act.Record(ctx, "x", tx.Commit)`:                                0,
		`_ = tx.Commit()`:                                                    1,
		`_, _ = os.OpenFile("x", os.O_RDWR, 0)`:                              0,
		`_, _ = os.OpenFile("x", os.O_RDWR|os.O_CREATE, 0)`:                  1,
		`defer func() { _ = os.Remove("x") }()`:                              1,
		`_, _ = unix.IoctlLoopGetStatus64(3)`:                                0,
		`_ = unix.IoctlSetInt(3, unix.LOOP_CLR_FD, 0)`:                       1,
		`_ = netlink.LinkDel(l)`:                                             1,
		`_, _ = netlink.LinkByName("x")`:                                     0,
		`_ = exec.Command("mkfs.ext4")`:                                      1,
		`_ = renameio.WriteFile("x", nil, 0)`:                                1,
		`_ = w.Processes.Signal(id, unix.SIGKILL)`:                           1,
		`if err := act.Do(ctx, "x", f); err != nil { _ = os.Remove("x") }`:   1,
		`_ = act.Do(ctx, name(os.Remove("x")), func() error { return nil })`: 0, // who would
	} {
		s, err := parse("internal/x/x.go", []byte("package x\nimport (\n\"os\"\n\"os/exec\"\n\"golang.org/x/sys/unix\"\n\"github.com/vishvananda/netlink\"\n\"github.com/google/renameio/v2\"\n\"banger/internal/act\"\n)\nfunc f() {\n"+body+"\n}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.acts()["f"]; len(got) != want {
			t.Errorf("%s: %q, want %d", body, got, want)
		}
	}
}
