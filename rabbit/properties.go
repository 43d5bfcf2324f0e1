package rabbit

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// What the driver can decode; see its read.go.
const (
	maxFieldDepth  = 32
	maxTableFields = 8192
)

// undecodable is the header that takes the place of a header table, or of a part of one, that the
// driver could not have decoded. Its value says why.
const undecodable = "x-undecodable-headers"

// The content header of AMQP 0-9-1, 2.3.5.2: class, weight, body size, flags, properties. Each
// property that is there has its flag.
const (
	contentHead  = 14
	flagsAt      = 12
	flagHeaders  = 1 << 13
	flagDelivery = 1 << 12
	flagPriority = 1 << 11
	flagTime     = 1 << 6
	flagLast     = 1 << 2
)

// checkProperties returns where the header table of a content header is, without its length, and
// what in the content header the driver could not decode, "" if nothing. The table is nil when
// there is none, or when it cannot be found.
func checkProperties(payload []byte) (table []byte, fault string) {
	if len(payload) < contentHead {
		return nil, "the content header is too short"
	}
	flags := binary.BigEndian.Uint16(payload[flagsAt:])
	rest := payload[contentHead:]
	for flag := uint16(1 << 15); flag >= flagLast; flag >>= 1 {
		if flags&flag == 0 {
			continue
		}
		var size int
		switch flag {
		case flagHeaders:
			if size = sizeOf(rest, 4); size >= 0 {
				table = rest[4:size]
				fault = checkTable(table, 0)
			}
		case flagDelivery, flagPriority:
			size = 1
		case flagTime:
			size = 8
		default:
			size = sizeOf(rest, 1)
		}
		if size < 0 || size > len(rest) {
			return table, "the properties are cut off"
		}
		rest = rest[size:]
	}
	return table, fault
}

// repairProperties returns a content header that the driver can decode. It has what could be read
// of the header table, and the header undecodable. If more than the table is broken, nothing but
// that header is left. One of more than most bytes loses fields until it fits; 0: there is no such
// bound. A content header without a fault comes back as it is.
func repairProperties(payload []byte, most int) []byte {
	table, fault := checkProperties(payload)
	if most == 0 {
		most = math.MaxInt
	}
	if fault == "" && len(payload) > most {
		fault = fmt.Sprintf("a content header of %d bytes is larger than a frame of the connection",
			len(payload))
	}
	if fault == "" {
		return payload
	}
	var headers []byte
	if table != nil {
		// Besides the fields there are the other properties, and the header that is added.
		room := most - (len(payload) - len(table)) - len(undecodable) - len(fault) - 1 - 1 - 4
		headers = readable(table, room)
	}
	headers = append(append(headers, byte(len(undecodable))), undecodable...)
	headers = append(binary.BigEndian.AppendUint32(append(headers, 'S'), uint32(len(fault))), fault...)
	headers = append(binary.BigEndian.AppendUint32(nil, uint32(len(headers))), headers...)
	if len(payload) < contentHead {
		payload = make([]byte, contentHead)
	}
	flags := binary.BigEndian.Uint16(payload[flagsAt:])
	repaired := append([]byte{}, payload[:flagsAt]...)
	rest := payload[contentHead:]
	before := 0 // bytes of the properties before the table: content-type and content-encoding
	for range bits.OnesCount16(flags & (1<<15 | 1<<14)) {
		if size := sizeOf(rest[before:], 1); size >= 0 {
			before += size
		}
	}
	after := before + 4 + len(table)
	if table == nil || after > len(rest) || !fitsAfter(rest[after:], flags) {
		return append(binary.BigEndian.AppendUint16(repaired, flagHeaders), headers...)
	}
	repaired = append(binary.BigEndian.AppendUint16(repaired, flags), rest[:before]...)
	return append(append(repaired, headers...), rest[after:]...)
}

// fitsAfter tells whether the properties behind the header table can be decoded.
func fitsAfter(rest []byte, flags uint16) bool {
	content := make([]byte, contentHead, contentHead+len(rest))
	binary.BigEndian.PutUint16(content[flagsAt:], flags&(flagHeaders-1))
	_, fault := checkProperties(append(content, rest...))
	return fault == ""
}

// sizeOf returns how long a string or a table is that begins with its own length in so many bytes,
// the length included, and -1 if it is not all there.
func sizeOf(b []byte, length int) int {
	if len(b) < length {
		return -1
	}
	size := int(b[0])
	if length == 4 {
		size = int(binary.BigEndian.Uint32(b))
	}
	if size > len(b)-length {
		return -1
	}
	return length + size
}

// checkTable returns what in a field table the driver could not decode.
func checkTable(table []byte, depth int) (fault string) {
	if depth > maxFieldDepth {
		return fmt.Sprintf("a table is nested deeper than %d", maxFieldDepth)
	}
	for fields := 0; len(table) > 0; fields++ {
		if fields == maxTableFields {
			return fmt.Sprintf("a table has more than %d fields", maxTableFields)
		}
		key := sizeOf(table, 1)
		if key < 0 {
			return "the name of a field is cut off"
		}
		size, fault := checkField(table[key:], depth)
		if fault != "" {
			return fault
		}
		table = table[key+size:]
	}
	return ""
}

// checkField returns how long a field is with its type, -1 if that cannot be told, and what in it
// the driver could not decode.
func checkField(b []byte, depth int) (size int, fault string) {
	if len(b) == 0 {
		return -1, "a field is cut off"
	}
	value := b[1:]
	switch b[0] {
	case 'V':
		size = 0
	case 't', 'b', 'B':
		size = 1
	case 's', 'u':
		size = 2
	case 'I', 'i', 'f':
		size = 4
	case 'D':
		size = 5
	case 'l', 'd', 'T':
		size = 8
	case 'S', 'x', 'F', 'A':
		if size = sizeOf(value, 4); size < 0 {
			return -1, "a field is cut off"
		}
	default:
		return -1, fmt.Sprintf("a field has the unknown type %q", b[0])
	}
	switch {
	case size > len(value):
		return -1, "a field is cut off"
	case b[0] == 'F':
		fault = checkTable(value[4:size], depth+1)
	case b[0] == 'A':
		fault = checkArray(value[4:size], depth+1)
	}
	return 1 + size, fault
}

func checkArray(array []byte, depth int) (fault string) {
	if depth > maxFieldDepth {
		return fmt.Sprintf("an array is nested deeper than %d", maxFieldDepth)
	}
	for fields := 0; len(array) > 0; fields++ {
		if fields == maxTableFields {
			return fmt.Sprintf("an array has more than %d elements", maxTableFields)
		}
		size, fault := checkField(array, depth)
		if fault != "" {
			return fault
		}
		array = array[size:]
	}
	return ""
}

// readable returns the fields of a table that the driver can decode, up to the first whose end
// cannot be found, without those for which there is no room.
func readable(table []byte, room int) (fields []byte) {
	for n := 0; len(table) > 0 && n < maxTableFields-1; n++ {
		key := sizeOf(table, 1)
		if key < 0 {
			return fields
		}
		size, fault := checkField(table[key:], 0)
		if size < 0 {
			return fields
		}
		if fault == "" && len(fields)+key+size <= room {
			fields = append(fields, table[:key+size]...)
		}
		table = table[key+size:]
	}
	return fields
}
