package rabbit

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
)

// The frames of AMQP 0-9-1, 2.3.5: type, channel, size, payload, end.
const (
	frameMethod = 1
	frameHeader = 2
	frameBody   = 3
	frameHead   = 7 // bytes before the payload
	frameTail   = 1

	// maxHeaderFrame is far above the frame size that brokers negotiate. A larger one is left to the
	// driver, which refuses it.
	maxHeaderFrame = 16 << 20
)

// basicDeliver is class and method of the frame with which a delivery begins.
const basicDeliver = 60<<16 | 60

// frames passes on what the broker sends, frame by frame, and stands between the wire and the
// driver for two reasons. The driver ends the connection when it cannot decode a header table; the
// broker would then deliver the same message again, and one message would stop a queue. And AMQP
// 0-9-1 bounds what is in hand by number only, so bytes are bounded by not reading on.
type frames struct {
	in   *bufio.Reader
	gate *gate
	// waited is called when the gate was shut for a while, in which nothing was read.
	waited func()
	left   int64  // bytes of the current frame that are still to be passed on
	out    []byte // the rest of a header frame that was rewritten
}

func newFrames(r io.Reader) *frames {
	return &frames{in: bufio.NewReaderSize(r, socketBuffer), gate: newGate(), waited: func() {}}
}

func (f *frames) Read(p []byte) (int, error) {
	if f.left == 0 && len(f.out) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	if len(f.out) > 0 {
		n := copy(p, f.out)
		f.out = f.out[n:]
		return n, nil
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, err
}

// next looks at the frame that comes and decides how it is passed on.
func (f *frames) next() error {
	head, err := f.in.Peek(frameHead)
	if len(head) < frameHead {
		f.left = int64(len(head)) // the driver reports what is missing
		if f.left > 0 {
			return nil
		}
		return err
	}
	size := int64(binary.BigEndian.Uint32(head[3:]))
	f.left = frameHead + size + frameTail
	switch head[0] {
	case frameMethod:
		method, _ := f.in.Peek(frameHead + 4)
		if len(method) == frameHead+4 && binary.BigEndian.Uint32(method[frameHead:]) == basicDeliver {
			if f.gate.wait() {
				f.waited()
			}
		}
	case frameHeader:
		return f.header(size)
	case frameBody:
		f.gate.take(size)
	case 'A': // the broker speaks another version of the protocol and says so without a frame
		f.left = math.MaxInt64
	}
	return nil
}

// header passes on a content header if the driver can decode it, and a rewritten one otherwise.
func (f *frames) header(size int64) error {
	if size > maxHeaderFrame {
		return nil
	}
	if whole, err := f.in.Peek(int(f.left)); err == nil {
		if _, fault := checkProperties(whole[frameHead : frameHead+size]); fault == "" {
			return nil
		}
	}
	whole := make([]byte, f.left) // it is larger than the buffer, or must be rewritten
	f.left = 0
	if _, err := io.ReadFull(f.in, whole); err != nil {
		return err
	}
	payload := mendProperties(whole[frameHead : frameHead+size])
	f.out = binary.BigEndian.AppendUint32(whole[:3:3], uint32(len(payload)))
	f.out = append(append(f.out, payload...), whole[len(whole)-1])
	return nil
}
