package rabbit

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// The bounds of the driver's decoder; see its read.go.
const (
	maxFieldDepth  = 32
	maxTableFields = 8192
)

// undecodableHeader is a header that replaces a header table, or the fields of one, that the driver
// cannot decode. Its value is the reason.
const undecodableHeader = "x-undecodable-headers"

// The content header of AMQP 0-9-1, 2.3.5.2: class, weight, body size, flags, properties. The flags
// tell which properties are present.
const (
	contentHead  = 14
	flagsAt      = 12
	flagHeaders  = 1 << 13
	flagDelivery = 1 << 12
	flagPriority = 1 << 11
	flagTime     = 1 << 6
	flagLast     = 1 << 2
)

// checkProperties returns the header table of a content header, without its length, and the reason
// why the driver could not decode the content header, or "". The table is nil if it is missing or
// cannot be located.
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

// repairProperties returns a content header that the driver can decode. The result has the
// decodable fields of the header table and the header undecodableHeader. If more than the table is
// broken, it has that header only. A content header of more than maxSize bytes loses fields until
// it fits; a maxSize of 0 is no bound. A content header without a fault is returned unchanged.
func repairProperties(payload []byte, maxSize int) []byte {
	table, fault := checkProperties(payload)
	if maxSize == 0 {
		maxSize = math.MaxInt
	}
	if fault == "" && len(payload) > maxSize {
		fault = fmt.Sprintf("a content header of %d bytes is larger than a frame of the connection",
			len(payload))
	}
	if fault == "" {
		return payload
	}
	var headers []byte
	if table != nil {
		// The result also has the other properties, and the header that is added.
		room := maxSize - (len(payload) - len(table)) - len(undecodableHeader) - len(fault) - 1 - 1 - 4
		headers = decodableFields(table, room)
	}
	headers = append(append(headers, byte(len(undecodableHeader))), undecodableHeader...)
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

// fitsAfter reports whether the properties after the header table can be decoded.
func fitsAfter(rest []byte, flags uint16) bool {
	content := make([]byte, contentHead, contentHead+len(rest))
	binary.BigEndian.PutUint16(content[flagsAt:], flags&(flagHeaders-1))
	_, fault := checkProperties(append(content, rest...))
	return fault == ""
}

// sizeOf returns the size of a string or a table that begins with its own length, a number of
// length bytes. The size includes these bytes. It is -1 if b is too short.
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

// checkTable returns why the driver could not decode a field table, or "".
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

// checkField returns the size of a field including its type, or -1 if it is unknown, and the reason
// why the driver could not decode the field.
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

// decodableFields returns the fields of a table that the driver can decode, up to the first field
// of unknown size. It skips fields that exceed the remaining room.
func decodableFields(table []byte, room int) (fields []byte) {
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
