package image

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const docker12 = `Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`

func TestDebianLines(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing", nil, nil},
		{"deb822 of the container image", map[string]string{"sources.list.d/debian.sources": docker12}, []string{
			"deb http://deb.debian.org/debian bookworm main",
			"deb http://deb.debian.org/debian bookworm-updates main",
			"deb http://deb.debian.org/debian-security bookworm-security main",
		}},
		{"one-line of the installer", map[string]string{"sources.list": `
# deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://ftp.de.debian.org/debian/ bookworm main non-free-firmware
deb-src http://ftp.de.debian.org/debian/ bookworm main non-free-firmware
deb	http://security.debian.org/debian-security bookworm-security main # fixes
deb http://ftp.de.debian.org/debian/ bookworm-backports main
`}, []string{
			"deb http://ftp.de.debian.org/debian/ bookworm main non-free-firmware",
			"deb http://security.debian.org/debian-security bookworm-security main",
		}},
		{"others' archives are not Debian's", map[string]string{
			"sources.list":                  "deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] https://mirror.example/d bookworm main",
			"sources.list.d/docker.list":    "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable",
			"sources.list.d/vendor.list":    "deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main",
			"sources.list.d/pg.list":        "deb https://apt.example/pub/repos bookworm main",
			"sources.list.d/inline.sources": "Types: deb\nURIs: https://vendor.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY865UxYJ\n -----END PGP PUBLIC KEY BLOCK-----\n",
			"sources.list.d/off.sources":    docker12[:strings.Index(docker12, "\n\n")] + "\nEnabled: no\n",
			"sources.list.d/old.list.save":  "deb http://old.example/debian bookworm main",
		}, []string{"deb https://mirror.example/d bookworm main"}},
		{"another architecture", map[string]string{"sources.list": "deb [arch=arm64] http://deb.debian.org/debian bookworm main"}, nil},
		{"useless in a guest", map[string]string{"sources.list": "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\ndeb cdrom:[x]/debian bookworm main"}, nil},
		{"another release", map[string]string{"sources.list": "deb http://deb.debian.org/debian trixie main"}, nil},
		{"fixes alone are no suite", map[string]string{"sources.list": "deb http://security.debian.org/debian-security bookworm-security main"}, nil},
		{"continued fields, several of each", map[string]string{"sources.list.d/x.sources": "Types: deb deb-src\nURIs: http://a.example/debian\n\thttp://b.example/debian\nSuites: bookworm\nComponents:\n main\n contrib\n"}, []string{
			"deb http://a.example/debian bookworm main contrib", "deb http://b.example/debian bookworm main contrib",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := fstest.MapFS{}
			for name, text := range c.files {
				etc[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := debianLines(hostSources(etc), "bookworm", "amd64"); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// checkLines holds what mmdebstrap relies on: one line is one argument that it reads as a source.
func checkLines(t *testing.T, sources []source) {
	for _, line := range debianLines(sources, "bookworm", "amd64") {
		if !strings.HasPrefix(line, "deb http") || strings.ContainsAny(line, "\n\r") {
			t.Errorf("line %q", line)
		}
	}
}

func FuzzParseOneLine(f *testing.F) {
	f.Add("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main")
	f.Add("deb [")
	f.Add("deb [] \t")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, parseOneLine(text)) })
}

func FuzzParseDeb822(f *testing.F) {
	f.Add(docker12)
	f.Add(" \n:\n a\nTypes")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, parseDeb822(text)) })
}

const aptDump = `APT "";
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://user:pa;ss@proxy.example:3128/";
Acquire::http::Proxy::deb.debian.org "DIRECT";
Acquire::https::CaInfo "/etc/ssl/corp.pem";
Acquire::https::Proxy "";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
Acquire::AllowInsecureRepositories "1";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
`

func TestAptOptions(t *testing.T) {
	want := []string{
		`Acquire::http::Proxy "http://user:pa;ss@proxy.example:3128/";`,
		`Acquire::http::Proxy::deb.debian.org "DIRECT";`,
		`Acquire::https::CaInfo "/etc/ssl/corp.pem";`,
		`Acquire::Check-Valid-Until "false";`,
	}
	if got := aptOptions(aptDump); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func FuzzAptOptions(f *testing.F) {
	f.Add(aptDump)
	f.Add("Acquire::http::Proxy \"x\"; DPkg::Pre-Invoke { \"id\"; }; X \"y\";")
	f.Fuzz(func(t *testing.T, dump string) {
		for _, o := range aptOptions(dump) {
			key, value, ok := strings.Cut(o, " ")
			if !ok || !strings.HasPrefix(key, "Acquire::") || strings.Count(value, `"`) != 2 || !strings.HasPrefix(value, `"`) || !strings.HasSuffix(value, `";`) {
				t.Errorf("option %q", o)
			}
		}
	})
}

func TestBootstrapArgs(t *testing.T) {
	r, _ := recipeNamed("debian-bookworm")
	got := bootstrapArgs(r.with("git"), []string{"deb http://m/debian bookworm main"}, []string{`Acquire::http::Proxy "http://p";`}, true, true)
	want := []string{
		"mmdebstrap", "--mode=root", "--format=tar", "--variant=minbase", "--hook-dir=" + mergedUsr,
		"--include=usr-is-merged,ca-certificates,curl,git,iproute2,iputils-ping,kmod,less,netbase,procps",
		`--aptopt=Acquire::http::Proxy "http://p"`, "--customize-hook=" + scrub, "bookworm", "-", "deb http://m/debian bookworm main",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = bootstrapArgs(r, nil, nil, false, false)
	if got[1] != "--mode=unshare" || slices.Contains(got, "--hook-dir="+mergedUsr) || got[len(got)-1] != "-" || strings.Contains(strings.Join(got, " "), "usr-is-merged") {
		t.Errorf("without root and hook: %q", got)
	}
}

func TestStepOf(t *testing.T) {
	for line, want := range map[string]string{
		"I: extracting archives...":                "extracting archives",
		"I: automatically chosen mode: root":       "",
		"I: finding correct signed-by value...":    "",
		"I: removing tempdir /tmp/mmdebstrap.x...": "",
		"Setting up curl (7.88.1) ...":             "",
		"W: something...":                          "",
	} {
		if got, ok := stepOf(line); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", line, got, ok, want)
		}
	}
}
