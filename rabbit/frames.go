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

// Class and method of the frames that matter here: the broker proposes its bounds, and a delivery
// begins.
const (
	connectionTune = 10<<16 | 30
	basicDeliver   = 60<<16 | 60
	tuneFrameMax   = 6 // bytes before the frame size in the payload of connectionTune
)

// frames passes on what the broker sends, frame by frame, and stands between the wire and the
// driver for two reasons. The driver ends the connection when it cannot decode a header table; the
// broker would then deliver the same message again, and one message would stop a queue. And AMQP
// 0-9-1 bounds what is in hand by number only, so bytes are bounded by not reading on.
type frames struct {
	in   *bufio.Reader
	gate *gate
	// waited is called when the gate was shut for a while, in which nothing was read.
	waited func()
	// most is the largest payload of a frame that the driver takes, as the broker proposed it; 0: any.
	// The broker itself exceeds it, when it adds headers to a message that it delivers again.
	most int
	left int64  // bytes of the current frame that are still to be passed on
	out  []byte // the rest of a header frame that was rewritten
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
		f.method(size)
	case frameHeader:
		return f.header(size)
	case frameBody:
		f.gate.take(size)
	case 'A': // the broker speaks another version of the protocol and says so without a frame
		f.left = math.MaxInt64
	}
	return nil
}

// method looks at a frame that begins a delivery, or the connection.
func (f *frames) method(size int64) {
	method, _ := f.in.Peek(frameHead + 4)
	if len(method) < frameHead+4 {
		return
	}
	switch binary.BigEndian.Uint32(method[frameHead:]) {
	case basicDeliver:
		if f.gate.wait(f.deliveryTag()) {
			f.waited()
		}
	case connectionTune:
		const end = frameHead + tuneFrameMax + 4
		if tune, _ := f.in.Peek(end); size >= tuneFrameMax+4 && len(tune) == end {
			f.most = max(0, int(binary.BigEndian.Uint32(tune[end-4:]))-frameHead-frameTail)
		}
	}
}

// deliveryTag reads the tag of the delivery that comes: it is behind the consumer tag. A frame
// without one is the driver's to refuse.
func (f *frames) deliveryTag() uint64 {
	const length = frameHead + 4
	head, _ := f.in.Peek(length + 1)
	if len(head) <= length {
		return 0
	}
	end := length + 1 + int(head[length]) + 8
	if head, _ = f.in.Peek(end); len(head) < end {
		return 0
	}
	return binary.BigEndian.Uint64(head[end-8:])
}

// header passes on a content header if the driver can decode it, and a rewritten one otherwise.
func (f *frames) header(size int64) error {
	f.gate.header(size)
	if size > maxHeaderFrame {
		return nil
	}
	if whole, err := f.in.Peek(int(f.left)); err == nil && (f.most == 0 || size <= int64(f.most)) {
		if _, fault := checkProperties(whole[frameHead : frameHead+size]); fault == "" {
			return nil
		}
	}
	whole := make([]byte, f.left) // it is larger than the buffer, or must be rewritten
	f.left = 0
	if n, err := io.ReadFull(f.in, whole); err != nil {
		f.out = whole[:n] // the driver reports what is missing
		if n > 0 {
			return nil
		}
		return err
	}
	payload := repairProperties(whole[frameHead:frameHead+size], f.most)
	f.out = binary.BigEndian.AppendUint32(whole[:3:3], uint32(len(payload)))
	f.out = append(append(f.out, payload...), whole[len(whole)-1])
	return nil
}
