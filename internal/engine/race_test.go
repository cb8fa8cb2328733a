//go:build race

package engine

// The race detector makes everything many times as slow, and needs no thousand lives to see a race.
const soakCycles = 200
