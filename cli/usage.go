package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// strict makes every mistake in the words of a command a usage error in plain words, and a group
// without a subcommand show its help.
func strict(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	if c.HasSubCommands() && !c.Runnable() {
		check = noSuchCommand
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err != nil && !c.HasSubCommands() {
			err = wrongArguments(c, args, err)
		}
		if err == nil {
			err = incomplete(c, args)
		}
		if err != nil {
			return usage(err)
		}
		return nil
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// noSuchCommand is the check of a group, whose arguments are none of its commands.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%q is no command of %s", args[0], cmp.Or(wordsOf(c), c.Name()))
	c.SuggestionsMinimumDistance = 2 // letters that are wrong
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("%w: did you mean %q?", err, near[0])
	}
	return err
}

// wrongArguments says which arguments are missing, or which one is too many. The names of the
// arguments are those of the usage line. Another error of a check stays as it is.
func wrongArguments(c *cobra.Command, args []string, err error) error {
	names := strings.Fields(c.Use)[1:]
	required := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return strings.HasPrefix(name, "[")
	})
	endless := slices.ContainsFunc(names, func(name string) bool {
		return strings.Contains(name, "...")
	})
	switch {
	case len(args) < len(required):
		return missing(required[len(args):])
	case endless || len(args) <= len(names):
		return err
	case len(names) == 0:
		return fmt.Errorf("it takes no arguments, and %q is one", args[0])
	}
	return fmt.Errorf("%q is one argument too many: it takes %s", args[len(names)],
		strings.Join(names, " "))
}

// incomplete names an argument that is empty, or flags that a command requires and that are not
// given.
func incomplete(c *cobra.Command, args []string) error {
	for i, arg := range args {
		if strings.TrimSpace(arg) == "" {
			return fmt.Errorf("argument %d is empty", i+1)
		}
	}
	var flags []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[cobra.BashCompOneRequiredFlag]) > 0 && !f.Changed {
			flags = append(flags, "--"+f.Name)
		}
	})
	if len(flags) > 0 {
		return missing(flags)
	}
	return nil
}

// missing is the error about words that a command requires.
func missing(what []string) error {
	is := "is"
	if len(what) > 1 {
		is = "are"
	}
	return fmt.Errorf("%s %s missing", strings.ReplaceAll(strings.Join(what, " and "), "...", ""), is)
}

// wrongFlag says in plain words what is wrong with a flag.
func wrongFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		err = unknownFlag(c, unknown)
	case errors.As(err, &invalid):
		want := wanted(invalid.GetFlag().Value.Type())
		if errors.Is(invalid, strconv.ErrRange) {
			want += " that is not so large"
		}
		err = fmt.Errorf("--%s %q: want %s", invalid.GetFlag().Name, invalid.GetValue(), want)
	case errors.As(err, &bare):
		err = fmt.Errorf("--%s needs a value: %s", bare.GetFlag().Name, bare.GetFlag().Usage)
	}
	return usage(err)
}

// unknownFlag names the flag that a command does not have. A negative number is taken for one.
func unknownFlag(c *cobra.Command, err *pflag.NotExistError) error {
	letters := err.GetSpecifiedShortnames()
	switch {
	case letters != "" && strings.ContainsRune("0123456789.", rune(letters[0])):
		return fmt.Errorf("-%s: its arguments are not negative", letters)
	case letters != "":
		return fmt.Errorf("there is no flag -%s", letters)
	}
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	if near := names.SuggestionsFor(err.GetSpecifiedName()); len(near) > 0 {
		return fmt.Errorf("there is no flag --%s: did you mean --%s?", err.GetSpecifiedName(), near[0])
	}
	return fmt.Errorf("there is no flag --%s", err.GetSpecifiedName())
}

// wanted describes the values of a type of flags.
func wanted(kind string) string {
	switch kind {
	case "duration":
		return "a duration such as 90s or 15m"
	case "bool":
		return "true or false"
	case "float32", "float64":
		return "a number"
	}
	if strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint") {
		return "a whole number"
	}
	return "a value of type " + kind
}

// wordsOf are the words of a command after the program.
func wordsOf(c *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), c.Root().CommandPath()), " ")
}

// advise adds to an error of usage the name of the command and how it is used. An error that has
// a hint of its own stays as it is.
func advise(c *cobra.Command, err error) error {
	var own Error
	mine := errors.As(err, &own)
	if codeOf(err) != ExitUsage || mine && own.Next != "" {
		return err
	}
	var next []string
	if mine && c.Runnable() && wordsOf(c) != "" && !c.HasSubCommands() {
		err = fmt.Errorf("%s: %w", wordsOf(c), err)
	}
	if !c.HasSubCommands() {
		next = append(next, "usage: "+c.UseLine())
		example, _, _ := strings.Cut(strings.TrimSpace(c.Example), "\n")
		if example, _, _ = strings.Cut(example, "  #"); example != "" {
			next = append(next, "for example: "+strings.TrimSpace(example))
		}
	}
	next = append(next, "see: "+c.CommandPath()+" --help")
	return Error{Code: ExitUsage, Err: err, Next: strings.Join(next, "\n")}
}

// named makes a command show the program as the user has typed it, in its usage and examples.
func (a App) named(c *cobra.Command) {
	if a.typed == "" {
		return
	}
	if !c.HasParent() {
		c.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: a.typed}
	}
	var lines []string
	for line := range strings.SplitSeq(c.Example, "\n") {
		lines = append(lines, strings.Replace(line, " "+a.Name+" ", " "+a.Command(""), 1))
	}
	c.Example = strings.Join(lines, "\n")
	for _, sub := range c.Commands() {
		a.named(sub)
	}
}
