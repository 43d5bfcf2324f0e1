package rabbit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// nested returns a table that is nested depth times.
func nested(depth int) amqp.Table {
	t := amqp.Table{"bottom": int32(1)}
	for range depth {
		t = amqp.Table{"t": t}
	}
	return t
}

func nestedArray(depth int) []any {
	a := []any{int32(1)}
	for range depth {
		a = []any{a}
	}
	return a
}

func fields(n int) amqp.Table {
	t := amqp.Table{}
	for i := range n {
		t[fmt.Sprint(i)] = nil
	}
	return t
}

// undecodableHeaders are values that the broker accepts and the driver cannot decode.
var undecodableHeaders = map[string]any{
	"a table in 33 others":          nested(33),
	"a table in a hundred others":   nested(100),
	"an array in 40 others":         nestedArray(40),
	"a table with 9,000 fields":     fields(9000),
	"an array with 9,000 elements":  make([]any, 9000),
	"tables in an array in a table": amqp.Table{"a": []any{nested(32)}},
}

// A message whose headers the driver cannot decode does not end the session, and the messages after
// it are delivered. The message itself is malformed and keeps its other properties.
func TestUndecodableMessageEndsNoSession(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	var messages []rabbit.Message
	for name, value := range undecodableHeaders {
		m := message("k", len(messages), true)
		m.Body, m.Timestamp = []byte(name), time.Unix(1_700_000_000, 0)
		m.Headers = amqp.Table{"ce-type": "a.b", "zz": value, "aa": "text"}
		messages = append(messages, m, message("k", len(messages)+1, true))
	}
	for _, pending := range publish(t, p, messages...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	d := subscribe(t, url, len(messages))
	for _, want := range messages {
		got := next(t, d)
		if got.MessageId != want.MessageId || !bytes.Equal(got.Body, want.Body) ||
			got.DeliveryMode != amqp.Persistent ||
			!want.Timestamp.IsZero() && !got.Timestamp.Equal(want.Timestamp) {
			t.Fatalf("got %s %q, want %s %q", got.MessageId, got.Body, want.MessageId, want.Body)
		}
		record, err := rabbit.Record(got)
		if bad := want.Headers != nil; bad != errors.Is(err, events.ErrMalformed) {
			t.Errorf("%s: error %v", want.Body, err)
		} else if bad && (record.Type != "a.b" || got.Headers["aa"] != "text" ||
			!strings.Contains(err.Error(), "headers: a")) {
			t.Errorf("%s: read as %+v with headers %v: %v", want.Body, record, got.Headers, err)
		}
	}
	must(t, d.Err())
}

// content returns a content header with the given flags and properties.
func content(flags uint16, properties ...byte) []byte {
	payload := binary.BigEndian.AppendUint16([]byte{0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, flags)
	return append(payload, properties...)
}

func table(entries string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(entries))), entries...)
}

// Fields that cannot be decoded are removed, and all others stay.
func TestOnlyUndecodableFieldsAreRemoved(t *testing.T) {
	t.Parallel()
	const flagHeaders, flagMessageID, flagContentType = 1 << 13, 1 << 7, 1 << 15
	good := "\x01aS\x00\x00\x00\x01b"
	for name, c := range map[string]struct {
		payload []byte
		keeps   []string // texts that stay
	}{
		"unknown type": {content(flagHeaders|flagMessageID, append(table(good+"\x01qQxyz"),
			"\x02id"...)...), []string{good, "\x02id"}},
		"field cut off": {content(flagHeaders|flagMessageID,
			append(table(good+"\x01qS\x00\x00\x01\x00"), "\x02id"...)...), []string{good, "\x02id"}},
		"name cut off": {content(flagHeaders, table(good+"\x09q")...), []string{good}},
		"type cut off": {content(flagHeaders, table(good+"\x01q")...), []string{good}},
		"table cut off": {content(flagContentType|flagHeaders,
			append([]byte("\x01j"), table(good)[:8]...)...), nil},
		"text cut off": {content(flagMessageID, 200, 'x'), nil},
		"after it": {content(flagHeaders|flagMessageID, append(table(good), 200, 'x')...),
			[]string{good}},
		"no flags": {[]byte{0, 60}, nil},
		"nothing":  {nil, nil},
		"bad field in good": {content(flagHeaders, table("\x01tF"+string(table("\x01qQ"))+good)...),
			[]string{good}},
	} {
		if rabbit.CheckProperties(c.payload) == "" {
			t.Errorf("%s: no fault was found", name)
		}
		repaired := rabbit.RepairProperties(c.payload)
		if fault := rabbit.CheckProperties(repaired); fault != "" {
			t.Errorf("%s: repaired to %q, which still has the fault: %s", name, repaired, fault)
		}
		for _, keeps := range append(c.keeps, "x-undecodable-headers") {
			if !strings.Contains(string(repaired), keeps) {
				t.Errorf("%s: repaired to %q, without %q", name, repaired, keeps)
			}
		}
	}
}

// A content header that is larger than a frame of the connection loses fields until it fits. The
// broker makes such headers when it adds its own to a redelivery, and the driver would close the
// connection.
func TestContentHeaderFitsIntoAFrame(t *testing.T) {
	t.Parallel()
	const maxSize = 4096 - 8
	frame := func(kind byte, payload []byte) []byte {
		head := binary.BigEndian.AppendUint32([]byte{kind, 0, 1}, uint32(len(payload)))
		return append(append(head, payload...), 0xCE)
	}
	tune := frame(1, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32([]byte{0, 10, 0, 30,
		0, 0}, maxSize+8), 60))
	field := func(key string, size int) string {
		return string(byte(len(key))) + key + "S" +
			string(binary.BigEndian.AppendUint32(nil, uint32(size))) + strings.Repeat("x", size)
	}
	for _, size := range []int{maxSize - 40, maxSize, maxSize + 1, 100_000} {
		for _, order := range []string{field("large", size) + field("small", 3),
			field("small", 3) + field("large", size)} {
			header := content(1<<13|1<<7, append(table(order), "\x02id"...)...)
			got, err := io.ReadAll(rabbit.Through(bytes.NewReader(append(append([]byte{}, tune...),
				frame(2, header)...))))
			must(t, err)
			got = got[len(tune)+7 : len(got)-1]
			for _, keeps := range []string{"\x02id", field("small", 3), "larger than a frame"} {
				if len(header) > maxSize && (len(got) > maxSize || rabbit.CheckProperties(got) != "" ||
					!strings.Contains(string(got), keeps)) {
					t.Errorf("a header of %d bytes became one of %d without %q (fault %q)", len(header),
						len(got), keeps, rabbit.CheckProperties(got))
				}
			}
			if len(header) <= maxSize && !bytes.Equal(got, header) {
				t.Errorf("a header of %d bytes was changed", len(header))
			}
		}
	}
}

// A stream of frames passes without a change, in every segmentation by the network. Only
// undecodable content headers are rewritten.
func TestFramesPassUnchanged(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	frame := func(kind byte, payload []byte) []byte {
		head := binary.BigEndian.AppendUint32([]byte{kind, 0, 1}, uint32(len(payload)))
		return append(append(head, payload...), 0xCE)
	}
	var sent, want []byte
	for range 300 {
		body := bytes.Repeat([]byte{byte(random.IntN(256))}, random.IntN(200_000)/(1+random.IntN(2000)))
		header := content(1<<13, table("\x01aS\x00\x00\x00\x01b\x01xx"+string(table(string(body))))...)
		for _, f := range [][]byte{
			frame(1, []byte{0, 60, 0, 60, 1}), frame(2, header), frame(3, body), frame(8, nil),
		} {
			sent, want = append(sent, f...), append(want, f...)
		}
		if random.IntN(3) == 0 {
			bad := content(1<<13, table("\x01qQ"+string(body))...)
			sent = append(sent, frame(2, bad)...)
			want = append(want, frame(2, rabbit.RepairProperties(bad))...)
		}
	}
	// The last frame is a good one, so that the cut below is not in a rewritten frame.
	sent, want = append(sent, frame(8, nil)...), append(want, frame(8, nil)...)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(sent), "half": iotest.HalfReader(bytes.NewReader(sent)),
		"at the end": iotest.DataErrReader(bytes.NewReader(sent)),
		"cut off":    bytes.NewReader(sent[:len(sent)-3]),
	} {
		got, err := io.ReadAll(rabbit.Through(r))
		expected := want
		if name == "cut off" {
			expected = want[:len(want)-3]
		}
		if err != nil || !bytes.Equal(got, expected) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(expected), err)
		}
	}
	for _, payload := range [][]byte{content(1<<13, table("\x01qQ")...),
		content(1<<13, table(string(make([]byte, 100_000)))...)} {
		cut := frame(2, payload)[:20]
		if got, err := io.ReadAll(rabbit.Through(bytes.NewReader(cut))); err != nil ||
			!bytes.Equal(got, cut) {
			t.Errorf("a header that is cut off: %d bytes of %d, %v", len(got), len(cut), err)
		}
	}
	other := "AMQP\x00\x00\x09\x01" + strings.Repeat("?", 100)
	if got, err := io.ReadAll(rabbit.Through(strings.NewReader(other))); string(got) != other ||
		err != nil {
		t.Errorf("another protocol passes as %q, %v", got, err)
	}
}
