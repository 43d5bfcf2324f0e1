package pg

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"io"
)

// errReading refuses a statement on a session whose rows are still being read. The driver would
// take these rows for the answer to the new statement, and their reader would miss them without an
// error. This happened between the heartbeat of a leader and the windows of its relay.
var errReading = errors.New("the rows of another statement are still being read in this session")

// result has all the methods of the driver's rows, so that openRows hides none of them.
type result interface {
	driver.Rows
	driver.RowsNextResultSet
	driver.RowsColumnTypeScanType
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
}

// openRows are rows of conn that are still being read. Database/sql also closes them after the last
// row.
type openRows struct {
	result
	conn *conn
}

// trackRows records that rows are being read until they are closed.
func (c *conn) trackRows(rows driver.Rows, err error) driver.Rows {
	r, ok := rows.(result)
	if err != nil || !ok {
		return rows
	}
	c.reading = true
	return openRows{r, c}
}

// Next returns an error in place of io.EOF if no standby has what the statement wrote: outside
// a transaction the server commits after the last row.
func (r openRows) Next(into []driver.Value) error {
	err := r.result.Next(into)
	if errors.Is(err, io.EOF) {
		return cmp.Or(r.conn.checkError(nil), err)
	}
	return err
}

func (r openRows) Close() error {
	r.conn.reading = false
	return r.conn.checkError(r.result.Close())
}
