package main

import (
	"bytes"
	"fmt"
	"math"
)

// picture is the run as an SVG: requests a second, and p99, over requests in flight.
func (r *results) picture() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 400" font-family="system-ui, sans-serif" font-size="13">
<style>text{fill:#24292f}.grid{stroke:#d0d7de}.bg{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}.bg{fill:#0d1117}}</style>
<rect class="bg" width="920" height="400"/>
`)
	r.panel(&b, 70, "requests/s, 256-byte bodies", perSecond)
	r.panel(&b, 530, "p99 in ms", p99)
	for i, s := range systems {
		x := 40 + 175*i
		fmt.Fprintf(&b, `<rect x="%d" y="372" width="14" height="4" fill="%s"/><text x="%d" y="380">%s</text>`+"\n", x, colours[i], x+20, s.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// colours are told apart by people who see few of them (Okabe and Ito).
var colours = []string{"#0072B2", "#999999", "#D55E00", "#009E73", "#CC79A7"}

const panelWidth, panelHeight, panelTop = 350.0, 280.0, 50.0

// panel draws one figure of every system on a logarithmic scale of powers of ten.
func (r *results) panel(b *bytes.Buffer, left float64, title string, figure func(cell) float64) {
	steps := []int{1, 16, 128, 512}
	least, most := math.Inf(1), 0.0
	for _, s := range systems {
		for _, n := range steps {
			if v := r.of(s.name, 256, n, false, figure).median; v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	y := func(v float64) float64 { return panelTop + panelHeight*(1-(math.Log10(v)-low)/(high-low)) }
	x := func(i int) float64 { return left + panelWidth*float64(i)/float64(len(steps)-1) }
	fmt.Fprintf(b, `<text x="%.0f" y="28" font-weight="600">%s</text>`+"\n", left, title)
	for e := low; e <= high; e++ {
		at := y(math.Pow(10, e))
		fmt.Fprintf(b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text x="%.0f" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, left+panelWidth, at, at, left-8, at+4, math.Pow(10, e))
	}
	for i, n := range steps {
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%d</text>`+"\n", x(i), panelTop+panelHeight+18, n)
	}
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">in flight</text>`+"\n", left+panelWidth/2, panelTop+panelHeight+34)
	for i, s := range systems {
		var points bytes.Buffer
		for j, n := range steps {
			if v := r.of(s.name, 256, n, false, figure).median; v > 0 {
				fmt.Fprintf(&points, "%.1f,%.1f ", x(j), y(v))
			}
		}
		width := 2
		if s.name == "fallback" {
			width = 4
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"/>`+"\n", points.String(), colours[i], width)
	}
}
