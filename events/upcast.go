package events

import "fmt"

// Upcaster is a payload that can still be read as it was written in older major versions. Upcast
// turns the JSON of one major into that of the next: it must be pure, since it is run at each
// reading, wherever the old bytes are: in a queue, in an inbox's schedule or in an event store.
type Upcaster interface {
	Payload
	Upcast(major int, data []byte) ([]byte, error)
}

// upcast brings data to the major version of sample, one step after the other.
func upcast(sample Payload, published int, data []byte) (_ []byte, err error) {
	known := major(sample)
	u, can := sample.(Upcaster)
	if published == known {
		return data, nil
	}
	if published > known || published < 1 || !can {
		return nil, fmt.Errorf("%w: %s is of major version %d, known is %d", ErrUnknownMajor,
			sample.EventType(), published, known)
	}
	for ; published < known; published++ {
		if data, err = u.Upcast(published, data); err != nil {
			return nil, fmt.Errorf("%w: %s of major version %d as one of %d: %v", ErrMalformed,
				sample.EventType(), published, published+1, err)
		}
	}
	return data, nil
}
