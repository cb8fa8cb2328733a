// Package e2e tests the built product as a user meets it: bin/banger, its daemon, and real guests, in a root of their
// own. On the host they run on QEMU; in the lab (internal/lab) most of them run on Firecracker, as BANGER_TEST_DRIVERS
// there demands. Each test leaves the host as it found it. There is nothing to import here.
package e2e
