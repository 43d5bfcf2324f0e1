package postgres

import (
	"database/sql/driver"
	"errors"
)

// errReading refuses a statement on a session whose rows are still being read. The driver would
// take these rows for the answer to the new statement, and the reader of the rows would miss them
// without an error: so it was between a leader's sign of life and the windows of its relay.
var errReading = errors.New("the rows of another statement are still being read in this session")

// result is what the driver's rows can do.
type result interface {
	driver.Rows
	driver.RowsNextResultSet
	driver.RowsColumnTypeScanType
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
}

// openRows are rows of conn until they are closed, which database/sql does after the last as well.
type openRows struct {
	result
	conn *conn
}

// read notes that rows are being read.
func (c *conn) read(rows driver.Rows, err error) driver.Rows {
	r, ok := rows.(result)
	if err != nil || !ok {
		return rows
	}
	c.reading = true
	return openRows{r, c}
}

func (r openRows) Close() error {
	r.conn.reading = false
	return r.result.Close()
}
