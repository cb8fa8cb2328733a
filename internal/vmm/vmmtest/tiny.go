package vmmtest

import (
	"bytes"
	"encoding/binary"
	"testing"

	"banger/internal/guest"
)

// Guests of a few bytes, for tests of the process and not of a kernel: ELF images entered by their PVH note (Xen's
// "x86/HVM direct boot ABI"), in 32-bit protected mode without paging.

// What runs in them: TinyHalt stays until it is ended, TinyReset restarts at once.
var (
	TinyHalt  = []byte{0xfa, 0xf4, 0xeb, 0xfd}                   // cli; 1: hlt; jmp 1b
	TinyReset = []byte{0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0xcc, 0xf4} // lidt [0]; int3; hlt: a triple fault
)

// TinyPrint prints text on the first serial port, then runs next.
func TinyPrint(text string, next []byte) []byte {
	code := []byte{0x66, 0xba, 0xf8, 0x03} // mov dx, 0x3f8
	for _, b := range []byte(text) {
		code = append(code, 0xb0, b, 0xee) // mov al, b; out dx, al
	}
	return append(code, next...)
}

// TinyImage wraps code, which runs at 1 MiB, into an ELF file.
func TinyImage(t testing.TB, code []byte) []byte {
	t.Helper()
	const load, header, phdr = 0x100000, 64, 56
	note := struct {
		NameSize, DescSize, Type uint32
		Name                     [4]byte
		Entry                    uint32
	}{4, 4, 18, [4]byte{'X', 'e', 'n'}, load} // XEN_ELFNOTE_PHYS32_ENTRY
	type segment struct {
		Type, Flags                                        uint32
		Offset, VAddr, PAddr, FileSize, MemSize, Alignment uint64
	}
	noteAt, codeAt := uint64(header+2*phdr), uint64(0x1000)
	var b bytes.Buffer
	for _, part := range []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, // 64 bits, little endian
		struct {
			Type, Machine                            uint16
			Version                                  uint32
			Entry, PhOff, ShOff                      uint64
			Flags                                    uint32
			EhSize, PhSize, PhNum, ShSize, ShNum, Sh uint16
		}{2, 62, 1, load, header, 0, 0, header, phdr, 2, 64, 0, 0},
		segment{1, 5, codeAt, load, load, uint64(len(code)), uint64(len(code)), 0x1000},
		segment{4, 4, noteAt, 0, 0, 20, 20, 4},
		note,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	b.Write(make([]byte, codeAt-uint64(b.Len())))
	b.Write(code)
	b.Write(make([]byte, 0x3000)) // QEMU reads more of a kernel's beginning than there is
	return b.Bytes()
}

// TinyProof prints what a proof of KVM waits for, among other things.
var TinyProof = TinyPrint("noise\r\n"+guest.ProofLine+"\r\n", TinyReset)
