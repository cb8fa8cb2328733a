// Command banger is the program users type; everything of it is in internal/cli.
package main

import (
	"os"

	"banger/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
