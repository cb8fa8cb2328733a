package crashtest

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fillSource makes what a kernel and Firecracker are installed from: files that pass for them.
func fillSource(dir string) error {
	vmm, jailer := program(nil, []byte("firecracker")), program(nil, []byte("jailer"))
	sums := fmt.Sprintf("%x  firecracker\n%x  jailer\n", sha256.Sum256(vmm), sha256.Sum256(jailer))
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "vmlinux"), program(xenNote(), []byte("Linux version 6.1.0-test (me@here) #1 SMP\n\x00")), 0o600),
		os.WriteFile(filepath.Join(dir, "firecracker"), vmm, 0o700), os.WriteFile(filepath.Join(dir, "jailer"), jailer, 0o700),
		os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums), 0o600),
	)
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
