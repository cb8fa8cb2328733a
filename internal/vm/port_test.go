package vm

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	for spec, want := range map[string]Port{
		"8080:80":               {"127.0.0.1", 8080, 80, "tcp"},
		"80":                    {"127.0.0.1", 0, 80, "tcp"},
		"53/udp":                {"127.0.0.1", 0, 53, "udp"},
		"53/UDP":                {"127.0.0.1", 0, 53, "udp"},
		":80":                   {"127.0.0.1", 0, 80, "tcp"},
		"127.0.0.1:53:53/udp":   {"127.0.0.1", 53, 53, "udp"},
		"0.0.0.0:8080:80/tcp":   {"0.0.0.0", 8080, 80, "tcp"},
		"192.168.1.2::80":       {"192.168.1.2", 0, 80, "tcp"},
		"[::1]:8080:80":         {"::1", 8080, 80, "tcp"},
		"[::]:65535:1":          {"::", 65535, 1, "tcp"},
		"[::ffff:10.0.0.1]:1:2": {"10.0.0.1", 1, 2, "tcp"},
		"[0:0:0:0:0:0:0:1]::22": {"::1", 0, 22, "tcp"},
		"[127.0.0.1]:8080:80":   {"127.0.0.1", 8080, 80, "tcp"},
	} {
		got, err := ParsePort(spec)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", spec, got, err, want)
		}
		if again, err := ParsePort(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, read as %+v, %v", spec, got, again, err)
		}
	}
}

func TestParsePortRefuses(t *testing.T) {
	for spec, why := range map[string]string{
		"":                        "from 1 to 65535",
		"0":                       "from 1 to 65535",
		"65536":                   "from 1 to 65535",
		"+80":                     "from 1 to 65535",
		"http":                    "from 1 to 65535",
		"8080:":                   "guest's port",
		"0:80":                    "host's port",
		"99999:80":                "host's port",
		"8000-8010:80":            "is a range",
		"8080:80-90":              "is a range",
		"80/sctp":                 "tcp or udp",
		"80/":                     "tcp or udp",
		"80/tcp/udp":              "tcp or udp",
		"localhost:8080:80":       "name of a host",
		"1.2.3:8080:80":           "address is none",
		"::1:8080:80":             "in brackets",
		"[::1:8080:80":            "bracket",
		"[fe80::1%eth0]:8080:80":  "zone",
		"224.0.0.1:8080:80":       "none that a host has",
		"255.255.255.255:80:80":   "none that a host has",
		"::80":                    "address is empty",
		":8080:80":                "address is empty",
		"8080: 80":                "from 1 to 65535",
		strings.Repeat("8", 5000): "too long",
	} {
		if p, err := ParsePort(spec); err == nil || !strings.Contains(err.Error(), why) || HintOf(err) == "" {
			t.Errorf("%.60q: %+v, %v, want an error with %q and a hint", spec, p, err, why)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"8080:80", "127.0.0.1:53:53/udp", "[::1]:8080:80", "80", "1-2:3", "[::ffff:1.2.3.4]::5/udp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			if len(err.Error()) > 4*maxPortSpec+200 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if q, err := ParsePort(p.String()); err != nil || p != q {
			t.Fatalf("%q is %+v, written %q, read %+v, %v", s, p, p, q, err)
		}
		if err := ValidatePorts([]Port{p}); err != nil {
			t.Fatalf("%q was read as %+v, which is refused: %v", s, p, err)
		}
		if found, err := MatchPorts([]Port{p}, p.String()); err != nil || len(found) != 1 {
			t.Fatalf("%q does not match itself: %v, %v", s, found, err)
		}
	})
}

func TestValidatePorts(t *testing.T) {
	read := func(specs ...string) (ports []Port) {
		for _, s := range specs {
			p, err := ParsePort(s)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, p)
		}
		return ports
	}
	for _, good := range [][]Port{nil, read("80", "80"), read("8080:80", "8080:80/udp"), read("0.0.0.0:1:1", "[::]:1:1"), read("127.0.0.1:1:1", "127.0.0.2:1:2")} {
		if err := ValidatePorts(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	many := make([]string, MaxPorts+1)
	for i := range many {
		many[i] = "80"
	}
	for _, bad := range [][]Port{
		read("8080:80", "8080:81"), read("0.0.0.0:1:1", "127.0.0.1:1:2"), read("[::1]:1:1/udp", "[::]:1:1/udp"), read(many...),
		{{HostPort: 1, GuestPort: 1, Protocol: "tcp"}}, {{HostIP: "127.0.0.1", HostPort: -1, GuestPort: 1, Protocol: "tcp"}},
		{{HostIP: "127.0.0.1", GuestPort: 1}}, {{HostIP: "x", HostPort: 1, GuestPort: 1, Protocol: "tcp"}}, {{HostIP: "127.0.0.1", HostPort: 1, Protocol: "udp"}},
	} {
		if err := ValidatePorts(bad); err == nil {
			t.Errorf("%v: accepted", bad)
		}
	}
}

func TestMatchPorts(t *testing.T) {
	var all []Port
	for _, s := range []string{"8080:80", "0.0.0.0:8081:80", "8080:80/udp", "[::1]:8080:80"} {
		p, _ := ParsePort(s)
		all = append(all, p)
	}
	for spec, want := range map[string][]int{
		"80": {0, 1, 3}, "80/udp": {2}, "8080:80": {0, 3}, "127.0.0.1:8080:80": {0}, "127.0.0.1::80": {0}, "[::1]:8080:80": {3}, "81": nil, "9:80": nil,
	} {
		var expected []Port
		for _, i := range want {
			expected = append(expected, all[i])
		}
		if got, err := MatchPorts(all, spec); err != nil || !slices.Equal(got, expected) {
			t.Errorf("%s: %v, %v, want %v", spec, got, err, expected)
		}
	}
	if _, err := MatchPorts(all, "x"); err == nil {
		t.Error("x: accepted")
	}
}
