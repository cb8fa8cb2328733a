package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// In units of the drawing: a column and a row of a monospaced font of 14.
const (
	columnWidth = 8.43
	rowHeight   = 19
	margin      = 14
)

// draw writes the SVG.
func (s *screen) draw(w io.Writer) {
	width, height := int(float64(s.width)*columnWidth)+2*margin, s.height*rowHeight+2*margin
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", width, height, width, height)
	fmt.Fprint(w, "<style>\ntext { font: 14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre; fill: #d8dee9 }\n"+
		".c { fill: #a3be8c; font-weight: bold }\n")
	s.scroll(w)
	fmt.Fprintf(w, "</style>\n<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#1d2330\"/>\n", width, height)
	fmt.Fprintf(w, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"><g class=\"s\">\n", margin, margin, width-2*margin, s.height*rowHeight)
	for i, l := range s.lines {
		for j, v := range l.versions {
			if v.text == "" {
				continue
			}
			class, until := "", ""
			if strings.HasPrefix(v.text, "$ ") {
				class = ` class="c"`
			}
			if j+1 < len(l.versions) {
				until = fmt.Sprintf(` end="%.2fs"`, l.versions[j+1].from)
			}
			fmt.Fprintf(w, `<text%s y="%d" visibility="hidden">%s<set attributeName="visibility" to="visible" begin="%.2fs"%s/></text>`+"\n",
				class, i*rowHeight+rowHeight-5, escape(v.text), v.from, until)
		}
	}
	fmt.Fprint(w, "</g></svg>\n</svg>\n")
}

// scroll moves all up by a row whenever a line begins below the last row.
func (s *screen) scroll(w io.Writer) {
	fmt.Fprint(w, "@keyframes scroll {\n")
	for i := s.height; i < len(s.lines); i++ {
		if v := s.lines[i].versions; len(v) > 0 && s.end > 0 {
			fmt.Fprintf(w, "%.3f%% { transform: translateY(%dpx) }\n", 100*v[0].from/s.end, -(i-s.height+1)*rowHeight)
		}
	}
	fmt.Fprintf(w, "100%% { transform: translateY(%dpx) }\n}\n.s { animation: scroll %.2fs step-end both }\n", -max(0, len(s.lines)-s.height)*rowHeight, s.end)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // to a builder
	return b.String()
}
