package guest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the init of its own guest, and the host process that is killed.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		guestInit()
	}
	if sock := os.Getenv("BANGER_TEST_VICTIM"); sock != "" {
		victim(sock)
	}
	os.Exit(m.Run())
}

// guestInit serves streams on the port. The first line of one says what is to be done with it.
func guestInit() {
	_ = os.MkdirAll("/dev", 0o755)
	_ = os.MkdirAll("/sys", 0o755)
	_ = os.MkdirAll("/proc", 0o755)
	_ = unix.Mount("dev", "/dev", "devtmpfs", 0, "")
	_ = unix.Mount("sys", "/sys", "sysfs", 0, "")
	_ = unix.Mount("proc", "/proc", "proc", 0, "")
	ko, err := os.Open("/virtio_mmio.ko")
	if err == nil {
		err = unix.FinitModule(int(ko.Fd()), "", 0)
	}
	fmt.Println("virtio_mmio:", err)
	var port *os.File
	for range 400 { // the node is there a moment before the port (ENXIO)
		if port, err = os.OpenFile("/dev/vport0p1", os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("port:", err)
	sessions := 0
	err = ServePort(context.Background(), port, func(l net.Listener) error {
		sessions++
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Println("session", sessions, "ended:", err)
				return err
			}
			go guestStream(c)
		}
	})
	fmt.Println("ServePort:", err)
	select {}
}

func guestStream(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	line, _ := in.ReadString('\n')
	verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, _ := strconv.ParseInt(arg, 10, 64)
	switch verb {
	case "echo":
		_, _ = io.Copy(c, in)
	case "sink":
		h := sha256.New()
		_, _ = io.CopyN(h, in, n)
		_, _ = fmt.Fprintf(c, "%x\n", h.Sum(nil))
	case "drop":
		_, _ = io.CopyN(io.Discard, in, n)
		_, _ = fmt.Fprintf(c, "done\n")
	case "source":
		_, _ = io.CopyN(c, noise(uint64(n)), n)
	case "zero":
		_, _ = c.Write(make([]byte, n))
	case "stat":
		b, _ := os.ReadFile("/proc/self/stat")
		_, _ = c.Write(b)
	}
}

func noise(seed uint64) io.Reader {
	var s [32]byte
	s[0] = byte(seed)
	return rand.NewChaCha8(s)
}

// victim moves data both ways until it is killed.
func victim(sock string) {
	m := mustMux(sock)
	for range 2 {
		go func() {
			c, _ := m.Dial(context.Background())
			_, _ = fmt.Fprintf(c, "echo\n")
			go func() { _, _ = io.Copy(io.Discard, c) }()
			_, _ = io.Copy(c, noise(7))
		}()
	}
	c, _ := m.Dial(context.Background())
	_, _ = fmt.Fprintf(c, "source %d\n", 1<<40)
	_, _ = io.CopyN(io.Discard, c, 1<<20)
	fmt.Println("moving")
	_, _ = io.Copy(io.Discard, c)
	select {}
}

func mustMux(sock string) *Mux {
	m, err := dialMux(context.Background(), sock)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	return m
}

func dialMux(ctx context.Context, sock string) (*Mux, error) {
	c, err := net.Dial("unix", sock)
	if err != nil {
		return nil, err
	}
	return NewMux(ctx, c)
}

func open(t *testing.T, m *Mux, verb string) net.Conn {
	t.Helper()
	c, err := m.Dial(t.Context())
	if err == nil {
		_, err = io.WriteString(c, verb+"\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, m *Mux, verb string) string {
	t.Helper()
	c := open(t, m, verb)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRealPort(t *testing.T) {
	sock := bootPort(t, 6*time.Second) // long enough for the guest to wait for a host first
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := time.Now()
	m, err := dialMux(ctx, sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first session after %v", time.Since(start))

	t.Run("idle costs nothing", func(t *testing.T) {
		cpu := func() int {
			f := strings.Fields(ask(t, m, "stat"))
			user, _ := strconv.Atoi(f[13])
			system, _ := strconv.Atoi(f[14])
			return user + system
		}
		before := cpu()
		_ = m.Close()
		time.Sleep(3 * time.Second) // no host
		if m, err = dialMux(ctx, sock); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // a host that is silent
		if used := cpu() - before; used > 20 {
			t.Errorf("five idle seconds cost %d ms of processor time", used*10)
		} else {
			t.Logf("five idle seconds: %d ms", used*10)
		}
	})
	t.Run("round trip", func(t *testing.T) {
		const n = 300
		var opened, kept time.Duration
		for range n {
			start := time.Now()
			c := open(t, m, "echo")
			oneEcho(t, c)
			opened += time.Since(start)
			start = time.Now()
			oneEcho(t, c)
			kept += time.Since(start)
			_ = c.Close()
		}
		t.Logf("open and echo %v, echo %v", opened/n, kept/n)
	})
	t.Run("throughput", func(t *testing.T) {
		const n = 64 << 20
		for _, verb := range []string{"drop", "sink"} {
			start := time.Now()
			c := open(t, m, fmt.Sprintf("%s %d", verb, n))
			if _, err := c.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(c)
			t.Logf("to the guest (%s): %.0f MB/s", verb, n/1e6/time.Since(start).Seconds())
		}
		for _, verb := range []string{"zero", "source"} {
			start := time.Now()
			c := open(t, m, fmt.Sprintf("%s %d", verb, n))
			if got, err := io.Copy(io.Discard, c); err != nil || got != n {
				t.Fatal(got, err)
			}
			t.Logf("from the guest (%s): %.0f MB/s", verb, n/1e6/time.Since(start).Seconds())
		}
	})
	t.Run("100 MB intact", func(t *testing.T) {
		const n = 100_000_000
		c := open(t, m, fmt.Sprintf("sink %d", n))
		h := sha256.New()
		if _, err := io.CopyN(io.MultiWriter(c, h), noise(1), n); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(c)
		if want := hex.EncodeToString(h.Sum(nil)); strings.TrimSpace(string(got)) != want {
			t.Errorf("to the guest: digest %q, want %s", got, want)
		}
		c = open(t, m, fmt.Sprintf("source %d", n))
		got2, want := sha256.New(), sha256.New()
		_, _ = io.Copy(got2, c)
		_, _ = io.CopyN(want, noise(n), n)
		if !bytes.Equal(got2.Sum(nil), want.Sum(nil)) {
			t.Error("from the guest: other bytes")
		}
	})
	_ = m.Close()
}

func oneEcho(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
}

// TestRealPortHostAtBoot connects before the kernel runs.
func TestRealPortHostAtBoot(t *testing.T) {
	sock := bootPort(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	m, err := dialMux(ctx, sock)
	if err != nil {
		t.Fatal(err)
	}
	oneEcho(t, open(t, m, "echo"))
	t.Logf("answered %v after the socket appeared", time.Since(start))
	_ = m.Close()
}

// TestRealPortKilledHost kills host processes in the middle of megabytes, again and again.
func TestRealPortKilledHost(t *testing.T) {
	sock := bootPort(t, 0)
	const rounds = 100
	var slowest, total time.Duration
	for i := range rounds {
		v := exec.Command(os.Args[0])
		v.Env = append(os.Environ(), "BANGER_TEST_VICTIM="+sock)
		out, err := v.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
		if line, _ := bufio.NewReader(out).ReadString('\n'); line != "moving\n" {
			t.Fatalf("round %d: the victim says %q", i, line)
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		_ = v.Process.Kill()
		_ = v.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		start := time.Now()
		m, err := dialMux(ctx, sock)
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		oneEcho(t, open(t, m, "echo"))
		d := time.Since(start)
		total += d
		slowest = max(slowest, d)
		_ = m.Close()
	}
	t.Logf("%d reconnects: mean %v, slowest %v", rounds, total/rounds, slowest)
}
