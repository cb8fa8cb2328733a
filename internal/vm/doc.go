// Package vm is the vocabulary of the program: what a VM is (Spec, VMRecord, VMRuntime), what currently serves it
// (VMHandles), what was just seen of it (Observed), and the errors every layer speaks.
//
// It does no I/O and imports nothing of ours. The three kinds of state never share a struct; record_test.go holds that.
package vm
