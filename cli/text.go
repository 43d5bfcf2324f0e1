package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text writes for a person. All human output passes through it: its formats are the program's own
// words, and each value may come from another program, so it is written with every character
// escaped that a terminal would obey or not show. A time.Time is written in UTC, and a
// time.Duration without the digits that do not matter.
type Text struct {
	w   io.Writer
	err error // the first
}

// NewText returns a Text that writes to w.
func NewText(w io.Writer) *Text { return &Text{w: w} }

// Printf writes as fmt.Fprintf does, with its values escaped.
func (t *Text) Printf(format string, values ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, visibles(values)...)
	}
}

// Lines writes a text of several lines, each escaped and after an indent, which tells a line that
// a stranger has written from one of the program's own.
func (t *Text) Lines(indent, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		t.Printf("%s%s\n", indent, strings.TrimSuffix(line, "\r"))
	}
}

// Table writes rows of as many cells as head has columns, aligned.
func (t *Text) Table(head string, rows func(row func(cells ...any))) {
	if t.err != nil {
		return
	}
	w := tabwriter.NewWriter(t.w, 0, 0, 3, ' ', 0)
	inner := NewText(w)
	if head != "" {
		inner.Printf("%s\n", tabbed(head))
	}
	rows(func(cells ...any) {
		for i, cell := range visibles(cells) {
			separator := "\t"
			if i == len(cells)-1 {
				separator = "\n"
			}
			inner.Printf("%v"+separator, cell)
		}
	})
	if t.err = inner.err; t.err == nil {
		t.err = w.Flush()
	}
}

// tabbed is the program's own text, whose tabs stay what they are.
type tabbed string

func visibles(values []any) []any {
	list := make([]any, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case int, int64, float64, bool:
			list[i] = v
		case tabbed:
			list[i] = string(v)
		case []byte:
			list[i] = visible(string(v))
		case time.Time:
			list[i] = instant(v)
		case time.Duration:
			list[i] = age(v)
		case json.RawMessage:
			list[i] = visible(string(v))
		default:
			list[i] = visible(fmt.Sprint(v))
		}
	}
	return list
}

// instant is a time for a person, who may give it to --since.
func instant(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// age is a duration for a person, without the digits that do not matter.
func age(d time.Duration) string {
	d = d.Abs()
	unit := time.Second
	switch {
	case d < time.Second:
		unit = time.Millisecond
	case d >= time.Hour:
		unit = time.Minute
	}
	text := d.Round(unit).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// visible escapes what a terminal would obey or not show: control characters, also those above
// U+007F, line and paragraph separators, characters without a width and those that turn the
// direction of writing, and bytes that are not UTF-8. What it returns is one line.
func visible(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text // also without invalid bytes, which are read as U+FFFD
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case !hidden(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// hidden tells of a character that must not reach a terminal as it is.
func hidden(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// visibleJSON escapes in valid JSON what visible escapes in text. Such characters are only in
// strings there, and \u keeps their meaning.
func visibleJSON(document []byte) []byte {
	var b bytes.Buffer
	for len(document) > 0 {
		r, size := utf8.DecodeRune(document)
		switch {
		case r == '\n' || !hidden(r):
			b.Write(document[:size])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		document = document[size:]
	}
	return b.Bytes()
}
