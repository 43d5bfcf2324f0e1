package backlog

// Queries are the statements of Read, for a test of their plans.
var Queries = map[string]string{"unpublished": unpublishedSQL, "held": heldSQL,
	"parked": parkedSQL, "pending": pendingSQL}

// MaxTypes is maxTypes.
const MaxTypes = maxTypes
