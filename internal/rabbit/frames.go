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

	// maxHeaderFrame is far above the frame size that brokers negotiate. A larger frame passes
	// unchanged, and the driver refuses it.
	maxHeaderFrame = 16 << 20
)

// Class and method of two frames: with the first the broker proposes its bounds, with the second
// a delivery begins.
const (
	connectionTune = 10<<16 | 30
	basicDeliver   = 60<<16 | 60
	tuneFrameMax   = 6 // bytes before the frame size in the payload of connectionTune
)

// frames reads the frames of the broker for the driver. It exists for two reasons. First, the
// driver closes the connection if it cannot decode a header table. The broker would then deliver
// the same message again, so that one message would stop a queue. frames removes the undecodable
// part. Second, AMQP 0-9-1 bounds the number of unacknowledged deliveries but not their bytes.
// frames bounds the bytes by not reading the next delivery.
type frames struct {
	in   *bufio.Reader
	gate *gate
	// onWait is called after the gate was closed for a while, in which nothing was read.
	onWait func()
	// maxPayload is the largest payload that the driver accepts, as the broker proposed it, or 0 if
	// there is no bound. The broker itself exceeds it when it adds headers to a redelivered message.
	maxPayload int
	remaining  int64  // bytes of the current frame that are still to be passed on
	rewritten  []byte // the rest of a header frame that was rewritten
}

func newFrames(r io.Reader) *frames {
	return &frames{in: bufio.NewReaderSize(r, socketBuffer), gate: newGate(), onWait: func() {}}
}

func (f *frames) Read(p []byte) (int, error) {
	if f.remaining == 0 && len(f.rewritten) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	if len(f.rewritten) > 0 {
		n := copy(p, f.rewritten)
		f.rewritten = f.rewritten[n:]
		return n, nil
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.remaining)])
	f.remaining -= int64(n)
	return n, err
}

// next inspects the head of the next frame and decides how the frame is passed on.
func (f *frames) next() error {
	head, err := f.in.Peek(frameHead)
	if len(head) < frameHead {
		f.remaining = int64(len(head)) // the driver reports what is missing
		if f.remaining > 0 {
			return nil
		}
		return err
	}
	size := int64(binary.BigEndian.Uint32(head[3:]))
	f.remaining = frameHead + size + frameTail
	switch head[0] {
	case frameMethod:
		f.method(size)
	case frameHeader:
		return f.header(size)
	case frameBody:
		f.gate.add(size)
	case 'A': // the answer of a broker with another version of the protocol is not a frame
		f.remaining = math.MaxInt64
	}
	return nil
}

// method handles the two methods that matter here and ignores all others.
func (f *frames) method(size int64) {
	method, _ := f.in.Peek(frameHead + 4)
	if len(method) < frameHead+4 {
		return
	}
	switch binary.BigEndian.Uint32(method[frameHead:]) {
	case basicDeliver:
		if f.gate.wait(f.deliveryTag()) {
			f.onWait()
		}
	case connectionTune:
		const end = frameHead + tuneFrameMax + 4
		if tune, _ := f.in.Peek(end); size >= tuneFrameMax+4 && len(tune) == end {
			f.maxPayload = max(0, int(binary.BigEndian.Uint32(tune[end-4:]))-frameHead-frameTail)
		}
	}
}

// deliveryTag reads the tag of the next delivery, which follows the consumer tag. It returns 0 for
// a frame without a tag, which the driver refuses.
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

// header passes on a content header unchanged if the driver can decode it, and rewrites it
// otherwise.
func (f *frames) header(size int64) error {
	f.gate.header(size)
	if size > maxHeaderFrame {
		return nil
	}
	if whole, err := f.in.Peek(int(f.remaining)); err == nil &&
		(f.maxPayload == 0 || size <= int64(f.maxPayload)) {
		if _, fault := checkProperties(whole[frameHead : frameHead+size]); fault == "" {
			return nil
		}
	}
	whole := make([]byte, f.remaining) // the frame is larger than the buffer, or must be rewritten
	f.remaining = 0
	if n, err := io.ReadFull(f.in, whole); err != nil {
		f.rewritten = whole[:n] // the driver reports what is missing
		if n > 0 {
			return nil
		}
		return err
	}
	payload := repairProperties(whole[frameHead:frameHead+size], f.maxPayload)
	f.rewritten = binary.BigEndian.AppendUint32(whole[:3:3], uint32(len(payload)))
	f.rewritten = append(append(f.rewritten, payload...), whole[len(whole)-1])
	return nil
}
