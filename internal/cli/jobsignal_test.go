package cli

import "testing"

func TestSignalNames(t *testing.T) {
	for typed, want := range map[string]string{
		"TERM": "TERM", "sigkill": "sigkill", "9": "9", "64": "64", // what each guest knows goes as it is
		"CLD": "17", "SIGIOT": "6", "poll": "29", "RTMIN": "34", "SIGRTMIN+1": "35", "rtmax": "64", "RTMAX-2": "62", "RTMIN+30": "64",
		"": "", "0": "", "-9": "", "65": "", "SIG": "", "nonsense": "", "RTMIN-1": "", "RTMIN+31": "", "RTMAX+1": "", "RTMAX-31": "", "TERM+1": "", "CLD+1": "", "RTMIN+": "", "RTMIN+x": "",
	} {
		if got, ok := toGuest(typed); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", typed, got, ok, want)
		}
	}
}
