//go:build race

package crashtest

func init() { everyPoint = 9 } // the race detector takes ten times as long
