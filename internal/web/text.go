package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hidden returns the first character of a text that a reader does not see, or that changes the
// order in which the others are seen: control and format characters, separators of lines, what is
// not assigned, and bytes that are not UTF-8. Two texts that look alike are then alike.
func hidden(text string) (rune, bool) {
	var before rune
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			return r, true
		case spells(before, r):
		case !unicode.IsGraphic(r), unicode.In(r, unicode.Other_Default_Ignorable_Code_Point,
			unicode.Variation_Selector):
			return r, true
		}
		before = r
	}
	return 0, false
}

// spells tells whether r, which is not seen by itself, belongs to the spelling of the character
// before it: a joiner in the scripts that need it, a selector of the form of an ideograph or of a
// symbol.
func spells(before, r rune) bool {
	switch {
	case r == '\u200c' || r == '\u200d':
		return unicode.In(before, unicode.Arabic, unicode.Syriac, unicode.Devanagari, unicode.Bengali,
			unicode.Gurmukhi, unicode.Gujarati,
			unicode.Oriya, unicode.Tamil, unicode.Telugu, unicode.Kannada, unicode.Malayalam,
			unicode.Sinhala)
	case unicode.Is(unicode.Variation_Selector, r):
		return unicode.In(before, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.So)
	}
	return false
}

// escaped shows hidden characters by their numbers, as in \u202e.
func escaped(text string) string {
	if _, bad := hidden(text); !bad {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if _, bad := hidden(string(r)); bad {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// checkSeen refuses a text of a request with a character that is not seen.
func checkSeen(where, text string) error {
	if r, bad := hidden(text); bad {
		return Problemf(http.StatusBadRequest,
			"%.200s: has the character %U, which is not seen, or is not UTF-8", where, r)
	}
	return nil
}

// legible refuses an address with characters that are not seen, and one whose parameters cannot be
// told apart: otherwise they would be ignored.
func legible(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := checkSeen("path", r.URL.Path)
		if err == nil {
			err = checkQuery(r.URL.RawQuery)
		}
		if err != nil {
			WriteProblem(w, problemOf(err))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func checkQuery(raw string) error {
	parameters, err := url.ParseQuery(raw)
	if err != nil {
		return Problemf(http.StatusBadRequest,
			"query: must be name=value with & between them, percent-encoded")
	}
	for name, values := range parameters {
		for _, text := range slices.Concat([]string{name}, values) {
			if err := checkSeen("query", text); err != nil {
				return err
			}
		}
	}
	return nil
}
