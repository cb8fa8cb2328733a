package metrics

import (
	"bufio"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func text(t *Text) string {
	var b strings.Builder
	_, _ = t.WriteTo(&b)
	return b.String()
}

func TestText(t *testing.T) {
	c := NewCounter("x_total", "What\nit \\ is.", "a", "b")
	c.Add("2", `q"\`+"\n\xff")
	c.Add("1", "")
	c.Add("1", "")
	h := NewHistogram("y_seconds", "Durations.", []float64{0.1, 1}, "vmm")
	for _, v := range []float64{0.05, 0.1, 0.5, 7} {
		h.Observe(v, "qemu")
	}
	bare := NewCounter("z_total", "Nothing.")
	var out Text
	c.Write(&out)
	h.Write(&out)
	bare.Write(&out)
	bare.Add()
	bare.Write(&out)
	out.One("gauge", "g", "One.", 1.5e9)
	want := `# HELP x_total What\nit \\ is.
# TYPE x_total counter
x_total{a="1",b=""} 2
x_total{a="2",b="q\"\\\n` + "\ufffd" + `"} 1
# HELP y_seconds Durations.
# TYPE y_seconds histogram
y_seconds_bucket{vmm="qemu",le="0.1"} 2
y_seconds_bucket{vmm="qemu",le="1"} 3
y_seconds_bucket{vmm="qemu",le="+Inf"} 4
y_seconds_sum{vmm="qemu"} 7.65
y_seconds_count{vmm="qemu"} 4
# HELP z_total Nothing.
# TYPE z_total counter
# HELP z_total Nothing.
# TYPE z_total counter
z_total 1
# HELP g One.
# TYPE g gauge
g 1.5e+09
`
	if got := text(&out); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAtOnce(t *testing.T) {
	c, h := NewCounter("x_total", "", "a"), NewHistogram("y", "", []float64{1})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				c.Add("1")
				h.Observe(0.5)
				var out Text
				c.Write(&out)
				h.Write(&out)
			}
		})
	}
	all.Wait()
	var out Text
	c.Write(&out)
	h.Write(&out)
	if got := text(&out); !strings.Contains(got, "x_total{a=\"1\"} 8000\n") || !strings.Contains(got, "y_bucket{le=\"1\"} 8000\n") || !strings.Contains(got, "y_sum 4000\n") {
		t.Errorf("%s", got)
	}
}

func TestProcess(t *testing.T) {
	var out Text
	Process(&out, time.Unix(1_600_000_000, 0))
	got := text(&out)
	for _, name := range []string{"process_start_time_seconds 1.6e\\+09", "process_cpu_seconds_total \\S+", "process_resident_memory_bytes [1-9]\\S+", "process_open_fds [1-9]\\d*",
		`go_info\{version="go\S+"\} 1`, "go_goroutines [1-9]\\d*", "go_memstats_heap_alloc_bytes [1-9]\\S*"} {
		if !regexp.MustCompile("(?m)^" + name + "$").MatchString(got) {
			t.Errorf("no %s in\n%s", name, got)
		}
	}
	sample := regexp.MustCompile(`^(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"\})? [-+.0-9e]+)$`)
	for s := bufio.NewScanner(strings.NewReader(got)); s.Scan(); {
		if !sample.MatchString(s.Text()) {
			t.Errorf("%q", s.Text())
		}
	}
}
