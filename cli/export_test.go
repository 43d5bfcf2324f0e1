package cli

// Visible is visible for the tests, which compare what it leaves as it is.
func Visible(text string) string { return visible(text) }

// StartedAs is the app whose program was started with these words.
func (a App) StartedAs(typed string) App {
	a.typed = typed
	return a
}
