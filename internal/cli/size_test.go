package cli

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"512": 512 << 20, "1": 1 << 20, "1b": 1, "512M": 512 << 20, "512m": 512 << 20, "512MB": 512 << 20, "512MiB": 512 << 20, "2G": 2 << 30, "2 GiB": 2 << 30,
		"1.5g": 3 << 29, "0.5k": 512, "8191P": 0, "8388607T": 8388607 << 40, "8388608T": 0, "9223372036854775807b": 1<<63 - 1, "9223372036854775808b": 0,
		"": 0, "0": 0, "0.0G": 0, "0.1b": 0, "-1": 0, "-1G": 0, "G": 0, ".": 0, "1.2.3": 0, "1e3": 0, "0x10": 0, " 1G": 0, "1G1": 0, "١": 0, "+1": 0, "NaN": 0, "infG": 0,
	} {
		got, err := parseSize(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"512", "2G", "1.5GiB", "-1", "9999999999999T", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); (err == nil) != (n > 0) {
			t.Errorf("parseSize(%q) = %d, %v", s, n, err)
		}
	})
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1K", 512 << 20: "512M", 3 << 29: "1.5G", 16 << 40: "16T"} {
		if got := formatSize(n); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSizeFlagRoundsUpToMiB(t *testing.T) {
	f := sizeFlag{min: 1, max: 1 << 40}
	if err := f.Set("1500k"); err != nil || f.bytes != 2<<20 {
		t.Errorf("1500k: %d, %v", f.bytes, err)
	}
}
