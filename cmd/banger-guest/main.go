// Command banger-guest is init of the initramfs and agent of every guest (internal/guest/agent).
package main

import (
	"os"

	"banger/internal/guest/agent"
)

func main() { agent.Main(os.Args) }
