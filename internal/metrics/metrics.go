// Package metrics counts, and writes what was counted in Prometheus' text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4). Names and units are those that its
// documentation asks for: seconds, bytes, counters that end in _total.
//
// It knows nothing of VMs. Whoever counts keeps the values of a label few: each combination is kept until the end.
package metrics

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// ContentType is that of what Text writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Counter counts events, by the values of its labels. Safe for several goroutines.
type Counter struct {
	name, help string
	labels     []string

	mu sync.Mutex
	by map[string]uint64 // by key
}

// NewCounter makes a counter. Its name ends in _total.
func NewCounter(name, help string, labels ...string) *Counter {
	return &Counter{name: name, help: help, labels: labels, by: map[string]uint64{}}
}

// Add counts one event. There is a value for each label.
func (c *Counter) Add(values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by[key(values)]++
}

// Write writes it.
func (c *Counter) Write(t *Text) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Family("counter", c.name, c.help)
	for _, k := range slices.Sorted(maps.Keys(c.by)) {
		t.Sample(c.name, float64(c.by[k]), pairs(c.labels, k)...)
	}
}

// Histogram counts durations, by the values of its labels. Safe for several goroutines.
type Histogram struct {
	name, help string
	labels     []string
	bounds     []float64 // upper, ascending

	mu sync.Mutex
	by map[string]*distribution
}

type distribution struct {
	counts []uint64 // by bound; above the last one only count tells
	count  uint64
	sum    float64
}

// NewHistogram makes a histogram with these upper bounds, which ascend.
func NewHistogram(name, help string, bounds []float64, labels ...string) *Histogram {
	return &Histogram{name: name, help: help, bounds: bounds, labels: labels, by: map[string]*distribution{}}
}

// Observe counts a value v. There is a value for each label.
func (h *Histogram) Observe(v float64, values ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.by[key(values)]
	if d == nil {
		d = &distribution{counts: make([]uint64, len(h.bounds))}
		h.by[key(values)] = d
	}
	if i, _ := slices.BinarySearch(h.bounds, v); i < len(h.bounds) { // a bound belongs to its bucket
		d.counts[i]++
	}
	d.count++
	d.sum += v
}

// Write writes it: each bucket holds what is at most its bound, the smaller ones included.
func (h *Histogram) Write(t *Text) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Family("histogram", h.name, h.help)
	for _, k := range slices.Sorted(maps.Keys(h.by)) {
		d, labels := h.by[k], pairs(h.labels, k)
		below := uint64(0)
		for i, bound := range h.bounds {
			below += d.counts[i]
			t.Sample(h.name+"_bucket", float64(below), append(labels, Label{"le", number(bound)})...)
		}
		t.Sample(h.name+"_bucket", float64(d.count), append(labels, Label{"le", "+Inf"})...)
		t.Sample(h.name+"_sum", d.sum, labels...)
		t.Sample(h.name+"_count", float64(d.count), labels...)
	}
}

// key joins values by what no name holds.
func key(values []string) string { return strings.Join(values, "\x00") }

// pairs takes a key apart. It has no room for more, so that whoever appends gets a copy.
func pairs(labels []string, k string) []Label {
	if len(labels) == 0 {
		return nil
	}
	all := make([]Label, len(labels))
	for i, v := range strings.SplitN(k, "\x00", len(labels)) {
		all[i] = Label{labels[i], v}
	}
	return all
}
