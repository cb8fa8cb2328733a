package binary

// pin is what the programs of one release are, by SHA-256 in hex.
type pin struct{ vmm, jailer string }

// pins are the official x86-64 builds that banger was tested with. What has one of these versions is one of these files, or
// is refused.
var pins = map[string]pin{
	"1.12.1": {
		vmm:    "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
		jailer: "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
	},
}
