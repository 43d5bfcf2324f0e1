package schema

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrOutdated means that the published files differ from the code, in a way that breaks nothing.
var ErrOutdated = errors.New("published schemas are outdated")

// Review compares published schemas with those of the code, both by the names of their files. Its
// error names each breaking change and what to do instead. Without one it is ErrOutdated if the
// files must be written again.
func Review(published, current map[string][]byte) error {
	var broken, outdated []error
	for _, file := range slices.Sorted(maps.Keys(published)) {
		now, exists := current[file]
		if !exists {
			if !newer(file, current) {
				broken = append(broken, fmt.Errorf("%s: no payload has this schema any more: keep the type "+
					"while anybody may publish or replay it, then delete the file", file))
			}
			continue
		}
		reasons, err := Breaking(published[file], now)
		switch {
		case err != nil:
			broken = append(broken, fmt.Errorf("%s: %w", file, err))
		case len(reasons) > 0:
			broken = append(broken, fmt.Errorf("%s: a breaking change: %s: undo it, or publish it as a new "+
				"major version (methods Major and Upcast), whose consumers are deployed first", file,
				strings.Join(reasons, "; ")))
		case !bytes.Equal(published[file], now):
			outdated = append(outdated, fmt.Errorf("%w: %s differs", ErrOutdated, file))
		}
	}
	for _, file := range slices.Sorted(maps.Keys(current)) {
		if _, exists := published[file]; !exists {
			outdated = append(outdated, fmt.Errorf("%w: %s is missing", ErrOutdated, file))
		}
	}
	if len(broken) > 0 {
		return errors.Join(broken...)
	}
	return errors.Join(outdated...)
}

// newer reports whether there is another major version of a file, which can then be read by its
// upcaster.
func newer(file string, current map[string][]byte) bool {
	eventType, _, _ := strings.Cut(file, ".v")
	for other := range current {
		if name, _, _ := strings.Cut(other, ".v"); name == eventType {
			return true
		}
	}
	return false
}
