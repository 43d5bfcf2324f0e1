package events_test

import (
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
