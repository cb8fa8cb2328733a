package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

const mib = 1 << 20

// units are Docker's, all powers of 1024. A bare number is MiB, unlike Docker's bytes: nobody means 512 bytes.
var units = map[string]int64{
	"": mib, "b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": mib, "mb": mib, "mib": mib,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
}

// parseSize reads a size as Docker writes them ("512M", "2g", "1.5GiB") and returns bytes, always more than zero.
func parseSize(s string) (int64, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(s)
	}
	number, unit := s[:end], strings.ToLower(strings.TrimSpace(s[end:]))
	if strings.HasPrefix(s, "-") {
		return 0, errors.New("it is negative")
	}
	factor, ok := units[unit]
	if !ok || number == "" {
		return 0, errors.New("it is not a size: write 512M or 2G; a bare number is MiB")
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, errors.New("it is too big")
		}
		return positive(n * factor)
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("it is not a size: write 512M or 2G; a bare number is MiB")
	}
	if f *= float64(factor); f >= math.MaxInt64 {
		return 0, errors.New("it is too big")
	}
	return positive(int64(f))
}

func positive(n int64) (int64, error) {
	if n == 0 {
		return 0, errors.New("it is zero")
	}
	return n, nil
}

// sizeFlag is a pflag.Value that refuses what lies outside [min, max]. Bytes, a multiple of 1 MiB (rounded up).
type sizeFlag struct {
	bytes    int64
	min, max int64
}

func (f *sizeFlag) String() string {
	if f.bytes == 0 {
		return ""
	}
	return formatSize(f.bytes)
}

func (f *sizeFlag) Type() string { return "SIZE" }

func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	if err != nil {
		return err
	}
	if n < f.min || n > f.max {
		return fmt.Errorf("it must be from %s to %s", formatSize(f.min), formatSize(f.max))
	}
	f.bytes = (n + mib - 1) / mib * mib
	return nil
}

// formatSize writes bytes for people: "512M", "2G", "1.5G".
func formatSize(n int64) string {
	for _, u := range []struct {
		factor int64
		name   string
	}{{1 << 40, "T"}, {1 << 30, "G"}, {1 << 20, "M"}, {1 << 10, "K"}} {
		if n >= u.factor {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.factor)), ".0") + u.name
		}
	}
	return fmt.Sprintf("%dB", n)
}
