package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"banger/internal/vm"
)

const (
	patience  = 500 * time.Millisecond // nothing is shown of what takes less
	longStage = 5 * time.Second        // without a terminal a stage of this length is announced before its end
	frameTime = 100 * time.Millisecond
)

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// progress shows the stages of a long request on stderr: on a terminal one live line, and a line that stays for each
// stage that ended; elsewhere only plain lines. It is safe for several goroutines. After finish it writes nothing.
type progress struct {
	w     io.Writer
	live  bool // a terminal: lines can be redrawn
	color bool
	named bool // several VMs: each line names its own
	all   bool // -v: each stage is announced and told of, however short, and each state; plain lines only
	width func() int
	now   func() time.Time
	done  chan struct{}
	moved meter // bytes copied, shown on the live line

	mu     sync.Mutex
	closed bool
	urgent bool // what is held is to be seen, however soon all is over
	begun  time.Time
	idle   string // shown while no stage is known to be under way
	active []*stage
	held   []string // lines of stages that ended before patience did
	frame  int
	drawn  bool
}

type stage struct {
	key, label, note string
	begun            time.Time
	announced        bool
}

// meter counts the bytes that are written to it.
type meter struct{ atomic.Int64 }

func (m *meter) Write(b []byte) (int, error) {
	m.Add(int64(len(b)))
	return len(b), nil
}

// progress makes the display that fits stderr. Quiet, it shows nothing.
func (a *app) progress(quiet bool) *progress {
	fd := int(a.err.Fd())
	live := term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" && !a.verbose
	p := newProgress(a.err, live, live && os.Getenv("NO_COLOR") == "", time.Now)
	p.all = a.verbose
	p.width = func() int {
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			return w
		}
		return 80
	}
	if quiet {
		p.closed = true
		return p
	}
	go p.animate()
	return p
}

func newProgress(w io.Writer, live, color bool, now func() time.Time) *progress {
	return &progress{w: w, live: live, color: color, now: now, begun: now(), done: make(chan struct{}), width: func() int { return 80 }}
}

func (p *progress) animate() {
	every := frameTime
	if !p.live {
		every = time.Second
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-t.C:
			p.mu.Lock()
			p.frame++
			p.show()
			p.mu.Unlock()
		}
	}
}

// waiting says what is being waited for, for as long as no stage tells better: a stage may have begun before we listened.
func (p *progress) waiting(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = what
	if p.all && !p.closed {
		p.held = append(p.held, "banger: "+what+"\n")
		p.show()
	}
}

// event takes one event of the daemon.
func (p *progress) event(e vm.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	key := string(e.VM) + "\x00" + e.Name + "\x00" + e.Stage
	switch {
	case e.Kind == "stage" && e.Status == "begin":
		s := &stage{key: key, label: clean(e.Stage), note: clean(e.Text), begun: p.now()}
		if p.named && e.Name != "" {
			s.label = clean(e.Name) + ": " + s.label
		}
		p.active = append(p.active, s)
	case e.Kind == "stage":
		s := p.take(key)
		if s == nil {
			s = &stage{label: clean(e.Stage)} // it had begun before we listened
		}
		p.held = append(p.held, p.ended(s.label, e.Status == "end", time.Duration(e.ElapsedMs)*time.Millisecond))
	case e.Kind == "state" && p.all:
		p.held = append(p.held, "banger: "+clean(e.Name+": "+eventWords(e))+"\n")
	case e.Kind == "note" && e.Text != "":
		if s := p.find(key); s != nil && p.live {
			s.note = clean(e.Text)
		} else if e.Stage == "" {
			p.held = append(p.held, "banger: "+clean(e.Text)+"\n")
			p.urgent = true // it is no matter of how long something takes
		} else if !p.live {
			p.held = append(p.held, "banger: "+clean(e.Stage)+" … "+clean(e.Text)+"\n")
		}
	}
	p.show()
}

func (p *progress) find(key string) *stage {
	for _, s := range p.active {
		if s.key == key {
			return s
		}
	}
	return nil
}

func (p *progress) take(key string) *stage {
	for i, s := range p.active {
		if s.key == key {
			p.active = append(p.active[:i], p.active[i+1:]...)
			return s
		}
	}
	return nil
}

// ended is the line that stays of a stage.
func (p *progress) ended(label string, ok bool, took time.Duration) string {
	switch {
	case p.all && ok:
		return fmt.Sprintf("banger: %s … %s\n", label, milliseconds(took))
	case !p.live && ok:
		return fmt.Sprintf("banger: %s … %s\n", label, seconds(took))
	case !p.live:
		return fmt.Sprintf("banger: %s failed after %s\n", label, seconds(took))
	case ok:
		return fmt.Sprintf("%s %s %s\n", p.paint("32", "✓"), label, p.paint("2", seconds(took)))
	default:
		return fmt.Sprintf("%s %s %s\n", p.paint("31", "✗"), label, p.paint("2", seconds(took)))
	}
}

func (p *progress) paint(sgr, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// show brings the screen up to date; one write, so that nothing flickers. Caller holds mu.
func (p *progress) show() {
	if p.closed || !p.all && !p.urgent && p.now().Sub(p.begun) < patience {
		return
	}
	var b strings.Builder
	if p.drawn {
		b.WriteString("\r\x1b[K")
		p.drawn = false
	}
	for _, line := range p.held {
		b.WriteString(line)
	}
	p.held = nil
	if p.live && (len(p.active) > 0 || p.idle != "") {
		b.WriteString(p.liveLine())
		p.drawn = true
	}
	if !p.live {
		for _, s := range p.active {
			if !s.announced && (p.all || p.now().Sub(s.begun) >= longStage) {
				s.announced = true
				fmt.Fprintf(&b, "banger: %s …%s\n", s.label, after(" ", s.note))
			}
		}
	}
	if b.Len() > 0 {
		_, _ = io.WriteString(p.w, b.String())
	}
}

// liveLine tells of all stages under way; the newest note last, cut to the terminal's width.
func (p *progress) liveLine() string {
	var text, note string
	for _, s := range p.active {
		text += " " + s.label + " " + seconds(p.now().Sub(s.begun))
		note = s.note
	}
	if len(p.active) == 0 {
		text = " " + p.idle + " " + seconds(p.now().Sub(p.begun))
	}
	if n := p.moved.Load(); n > 0 && note == "" {
		note = formatSize(n)
	}
	line := []rune(text + after("  ", note))
	if room := p.width() - 2; room > 0 && len(line) > room {
		line = append(line[:room-1], '…')
	}
	return p.paint("36", spinner[p.frame%len(spinner)]) + string(line)
}

// say writes a line for people at once, above the live line.
func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		line = "\r\x1b[K" + line
		p.drawn = false // until the next frame
	}
	_, _ = io.WriteString(p.w, line+"\n")
}

// settle ends the stages that are still under way; ok: they ended well. The display goes on.
func (p *progress) settle(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(ok)
}

// end is settle; caller holds mu.
func (p *progress) end(ok bool) {
	if p.closed {
		return
	}
	if ok {
		for _, s := range p.active {
			p.held = append(p.held, p.ended(s.label, true, p.now().Sub(s.begun)))
		}
	}
	p.active, p.idle = nil, ""
	p.show()
}

// finish ends the display and clears the live line. ok: the stages still under way have ended well.
func (p *progress) finish(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.end(ok)
	if p.drawn {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
	}
	p.closed = true
	close(p.done)
}
