package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"banger/internal/testhost"
)

// testManyStreams has twenty commands at once in the VM web take 10 MB each and give them back: to each its own. 200 MB pass
// each way; of them the agent's journals keep 16 MiB, all jobs together, and nobody else more than is under way.
func testManyStreams(t *testing.T, b *box) {
	const clients = 20
	size := 10_000_000
	if testhost.Alone() { // a guest within a guest, all of it emulated, brings some 300 kB/s
		size = 200_000
	}
	grown := b.growth(t)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		wg.Go(func() {
			got, errs, code := b.run(bytes.NewReader(data), "vm", "exec", "-i", "web", "--", "cat")
			if sha256.Sum256([]byte(got)) != sha256.Sum256(data) || code != 0 {
				t.Errorf("%d: %d bytes came back, or others than were sent; stderr %q, exit code %d", i, len(got), errs, code)
			}
		})
	}
	wg.Wait()
	what := fmt.Sprintf("%d times %d bytes, there and back", clients, size)
	t.Logf("%s: %.1f MB/s", what, float64(2*clients*size)/1e6/time.Since(begin).Seconds())
	flat(t, what, grown())
}
