package events_test

import (
	"bytes"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/events"
)

// BookLent is a fact of a library.
type BookLent struct {
	Book   string `json:"book"`
	Reader string `json:"reader"`
}

func (BookLent) EventType() string { return "book.lent" }
func (b BookLent) Subject() string { return b.Book }

// A payload is a plain struct; its event goes to the wire as a record and comes back as the same.
func Example() {
	lent := events.Cause(events.Event{}, "/library", time.Now(), BookLent{Book: "Emma", Reader: "ada"})
	record, err := lent.Record()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(record.Type, string(record.Data))

	library := events.NewCatalogue(BookLent{Book: "Persuasion", Reader: "bo"})
	read, err := library.Open(record)
	if err != nil {
		fmt.Println(err)
		return
	}
	of, _ := events.As[BookLent](read)
	fmt.Println(of.Data.Reader, "has", of.Data.Book, of.ID == lent.ID)
	// Output:
	// book.lent {"book":"Emma","reader":"ada"}
	// ada has Emma true
}

func ExampleCatalogue_Decode() {
	library := events.NewCatalogue(BookLent{Book: "Persuasion", Reader: "bo"})
	_, err := library.Decode("book.lent", []byte(`{"book":"Emma","reader":"ada","reader":"bo"}`))
	fmt.Println(err)
	// Output:
	// malformed event: decode book.lent: jsontext: duplicate object member name "reader"
}

// BookReturned had a name in place of the id of its reader in major version 1.
type BookReturned struct {
	Book     string `json:"book"`
	ReaderID int    `json:"reader_id"`
}

func (BookReturned) EventType() string { return "book.returned" }
func (b BookReturned) Subject() string { return b.Book }

// Major is the version of the schema that this program writes.
func (BookReturned) Major() int { return 2 }

// Upcast turns the JSON of version 1 into that of version 2.
func (BookReturned) Upcast(_ int, data []byte) ([]byte, error) {
	return bytes.Replace(data, []byte(`"reader":"ada"`), []byte(`"reader_id":7`), 1), nil
}

// Events of an older major version, in a queue or in a table, are read as the current one.
func ExampleUpcaster() {
	library := events.NewCatalogue(BookReturned{Book: "Persuasion", ReaderID: 1})
	p, err := library.Payload(events.Record{Type: "book.returned",
		DataSchema: "urn:quadrille:book.returned:1", Data: []byte(`{"book":"Emma","reader":"ada"}`)})
	fmt.Printf("%+v %v\n", p, err)
	// Output: {Book:Emma ReaderID:7} <nil>
}
