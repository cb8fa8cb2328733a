package crashtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Vmlinux is the smallest file that passes for a guest kernel: an ELF with the note that says where a VMM enters it, and the
// banner that tells its release.
func Vmlinux() []byte {
	return program(xenNote(), []byte("Linux version 6.1.0-test (me@here) #1 SMP\n\x00"))
}

// xenNote says where a VMM enters a kernel (XEN_ELFNOTE_PHYS32_ENTRY).
func xenNote() []byte {
	var b []byte
	for _, n := range []uint32{4, 8, 18} { // sizes of name and content, type
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(append(b, "Xen\x00"...), make([]byte, 8)...)
}

// program is a static ELF file for x86-64.
func program(note, body []byte) []byte {
	progs := []elf.Prog64{{Type: uint32(elf.PT_LOAD), Filesz: uint64(len(body)), Memsz: uint64(len(body))}}
	if note != nil {
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_NOTE), Filesz: uint64(len(note))})
	}
	at := uint64(64 + 56*len(progs))
	progs[0].Off = at + uint64(len(note))
	if note != nil {
		progs[1].Off = at
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)), Shentsize: 64,
	})
	_ = binary.Write(&b, binary.LittleEndian, progs)
	return append(append(b.Bytes(), note...), body...)
}
