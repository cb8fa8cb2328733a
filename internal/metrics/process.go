package metrics

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Process writes what this process uses, by the names that Prometheus' own libraries give it. What cannot be read is left out.
func Process(t *Text, began time.Time) {
	t.One("gauge", "process_start_time_seconds", "When the process began, in seconds since 1970.", float64(began.UnixMilli())/1000)
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
		t.One("counter", "process_cpu_seconds_total", "Processor time that the process has used.", float64(used.Utime.Nano()+used.Stime.Nano())/1e9)
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(b); len(f) > 1 { // in pages: size, resident
			if pages, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				t.One("gauge", "process_resident_memory_bytes", "Memory that the process holds.", float64(pages*int64(os.Getpagesize())))
			}
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		t.One("gauge", "process_open_fds", "File descriptors that are open.", float64(len(fds)-1)) // one is the look itself
	}
	t.Family("gauge", "go_info", "The Go that built the program.")
	t.Sample("go_info", 1, Label{"version", runtime.Version()})
	t.One("gauge", "go_goroutines", "Goroutines there are.", float64(runtime.NumGoroutine()))
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}} // ReadMemStats would stop the world
	metrics.Read(heap)
	if heap[0].Value.Kind() == metrics.KindUint64 {
		t.One("gauge", "go_memstats_heap_alloc_bytes", "Bytes of heap objects.", float64(heap[0].Value.Uint64()))
	}
}
