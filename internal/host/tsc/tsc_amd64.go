package tsc

func rdtsc() uint64

func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

const available = true

// stated is the rate in Hz that the processor or the hypervisor states, or 0.
func stated() uint64 {
	const hypervisorBit = 1 << 31
	if _, _, ecx, _ := cpuid(1, 0); ecx&hypervisorBit != 0 {
		// The timing leaf of VMware, which KVM's users (Firecracker, QEMU with +vmware-cpuid-freq) give as well: kHz.
		if maxLeaf, _, _, _ := cpuid(0x4000_0000, 0); maxLeaf >= 0x4000_0010 && maxLeaf < 0x4001_0000 {
			if khz, _, _, _ := cpuid(0x4000_0010, 0); khz != 0 {
				return uint64(khz) * 1000
			}
		}
	}
	if maxLeaf, _, _, _ := cpuid(0, 0); maxLeaf >= 0x15 {
		// Intel SDM, CPUID leaf 15h: TSC = crystal × EBX / EAX. Without a crystal's rate there is nothing exact: leaf
		// 16h is in whole MHz.
		if den, num, crystal, _ := cpuid(0x15, 0); den != 0 && num != 0 && crystal != 0 {
			return uint64(crystal) * uint64(num) / uint64(den)
		}
	}
	return 0
}
