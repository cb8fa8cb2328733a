// Command bangerd is banger's daemon. The CLI starts it by itself; docs/ARCHITECTURE.md tells what it does.
package main

import (
	"os"

	"banger/internal/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:])) }
