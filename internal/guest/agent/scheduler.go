package agent

import (
	"fmt"
	"os"
	"strconv"
)

// monitorSlack is how late the kernel may wake the Go runtime's monitor thread. It looks every 20 µs, while the program
// does anything, for threads stuck in system calls. Under emulation these looks and the thread switches they lead to
// cost every exec 3 to 4 ms of the guest's only processor; the agent's calls do not get stuck, so it may look seldom.
const monitorSlack = "5000000" // nanoseconds

// calmMonitor sets the timer slack of that thread: the second one of a Go program, and the first the runtime makes.
// Not of the others: what they fork would inherit it.
func calmMonitor() error {
	threads, err := os.ReadDir("/proc/self/task") // sorted as text, so not to be relied on
	if err != nil {
		return fmt.Errorf("calm the runtime's monitor: %w", err)
	}
	self, monitor := os.Getpid(), 0
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil && id != self && (monitor == 0 || id < monitor) {
			monitor = id
		}
	}
	if monitor == 0 {
		return nil
	}
	if err := os.WriteFile("/proc/"+strconv.Itoa(monitor)+"/timerslack_ns", []byte(monitorSlack), 0); err != nil {
		return fmt.Errorf("calm the runtime's monitor: %w", err)
	}
	return nil
}
