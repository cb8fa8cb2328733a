//go:build !race

package engine

const soakCycles = 1000
