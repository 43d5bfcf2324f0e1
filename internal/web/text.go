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

// invisible returns the first character of a text that a reader does not see or that changes the
// order in which the other characters appear: control and format characters, line separators,
// unassigned characters, and bytes that are not UTF-8. Without them, two texts that look equal are
// equal.
func invisible(text string) (rune, bool) {
	var before rune
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			return r, true
		case partOfSpelling(before, r):
		case !unicode.IsGraphic(r), unicode.In(r, unicode.Other_Default_Ignorable_Code_Point,
			unicode.Variation_Selector):
			return r, true
		}
		before = r
	}
	return 0, false
}

// partOfSpelling reports whether the invisible character r belongs to the spelling of the character
// before it: a joiner in a script that needs it, or a variation selector of an ideograph or a
// symbol.
func partOfSpelling(before, r rune) bool {
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

// escapeInvisible replaces invisible characters with their code points, such as \u202e.
func escapeInvisible(text string) string {
	if _, bad := invisible(text); !bad {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if _, bad := invisible(string(r)); bad {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// checkVisible returns a Problem if a text of a request contains an invisible character.
func checkVisible(where, text string) error {
	if r, bad := invisible(text); bad {
		return Problemf(http.StatusBadRequest,
			"%.200s: contains the invisible character %U, or is not UTF-8", where, r)
	}
	return nil
}

// checkAddress refuses a request whose path or query contains invisible characters, and one whose
// query cannot be parsed: net/http would ignore the parameters that it cannot parse.
func checkAddress(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := checkVisible("path", r.URL.Path)
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
			"query: must be percent-encoded name=value pairs, separated by &")
	}
	for name, values := range parameters {
		for _, text := range slices.Concat([]string{name}, values) {
			if err := checkVisible("query", text); err != nil {
				return err
			}
		}
	}
	return nil
}
