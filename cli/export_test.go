package cli

// Visible is visible for the tests, which compare what it leaves as it is.
func Visible(text string) string { return visible(text) }
