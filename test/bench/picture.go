package main

import (
	"bytes"
	"fmt"
	"math"
)

// picture is the run as an SVG: requests a second, and p99, over requests in flight. It has a background of its own,
// light or dark, since a page's colour is not known to a picture in it.
func (r *results) picture() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 410" font-family="system-ui, sans-serif" font-size="13">
<title>Requests a second and p99 over requests in flight</title>
<style>text{fill:#24292f}.grid{stroke:#d0d7de}.bg{fill:#fff}.floor{stroke:#24292f}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}.bg{fill:#0d1117}.floor{stroke:#e6edf3}}</style>
<rect class="bg" width="920" height="410"/>
`)
	throughput, late := []line{r.floorLine()}, []line{}
	for i, s := range systems {
		throughput = append(throughput, r.line(s.name, colours[i], perSecond))
		late = append(late, r.line(s.name, colours[i], p99))
	}
	panel(&b, 70, "requests/s, 256-byte bodies", throughput)
	panel(&b, 530, "p99 in ms", late)
	left := 40
	for _, l := range throughput {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="386" y2="386" %s/><text x="%d" y="391">%s</text>`+"\n", left,
			left+24, l.style, left+30, l.name)
		left += 54 + 7*len(l.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// colours are told apart by people who see few of them (Okabe and Ito), on light and on dark.
var colours = []string{"#3D8FCF", "#999999", "#D55E00", "#009E73", "#CC79A7"}

// line is one figure of one system, a value for each number in flight; 0 where there is none.
type line struct {
	name, style string
	values      []float64
}

func (r *results) line(system, colour string, figure func(cell) float64) line {
	width := 2
	if system == "fallback" {
		width = 4
	}
	l := line{name: system, style: fmt.Sprintf(`stroke="%s" stroke-width="%d"`, colour, width)}
	for _, n := range inFlight {
		l.values = append(l.values, r.of(system, place{body: 256, inFlight: n}, figure).median)
	}
	return l
}

// floorLine is the floor's throughput. It has no p99: what is known of it is a cost, and not how that is spread.
func (r *results) floorLine() line {
	l := line{name: "floor (requests/s)", style: `class="floor" stroke-width="2" stroke-dasharray="5 4"`}
	for _, n := range inFlight {
		l.values = append(l.values, r.floor(place{body: 256, inFlight: n}).median)
	}
	return l
}

const panelWidth, panelHeight, panelTop = 350.0, 280.0, 50.0

// panel draws lines on a logarithmic scale of powers of ten.
func panel(b *bytes.Buffer, left float64, title string, lines []line) {
	low, high := decades(lines)
	y := func(v float64) float64 { return panelTop + panelHeight*(1-(math.Log10(v)-low)/(high-low)) }
	x := func(i int) float64 { return left + panelWidth*float64(i)/float64(len(inFlight)-1) }
	fmt.Fprintf(b, `<text x="%.0f" y="28" font-weight="600">%s</text>`+"\n", left, title)
	for e := low; e <= high; e++ {
		at := y(math.Pow(10, e))
		fmt.Fprintf(b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text x="%.0f" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, left+panelWidth, at, at, left-8, at+4, math.Pow(10, e))
	}
	for i, n := range inFlight {
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%d</text>`+"\n", x(i), panelTop+panelHeight+18, n)
	}
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">in flight</text>`+"\n", left+panelWidth/2,
		panelTop+panelHeight+34)
	for _, l := range lines {
		var points bytes.Buffer
		for i, v := range l.values {
			if v > 0 {
				fmt.Fprintf(&points, "%.1f,%.1f ", x(i), y(v))
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" %s/>`+"\n", bytes.TrimSpace(points.Bytes()), l.style)
	}
}

// decades are the powers of ten that hold every value.
func decades(lines []line) (low, high float64) {
	least, most := math.Inf(1), 0.0
	for _, l := range lines {
		for _, v := range l.values {
			if v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if most == 0 {
		return 0, 1
	}
	low, high = math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	return low, max(high, low+1)
}
