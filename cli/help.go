package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exitCodes are the exit codes with what they mean, for the help of the program.
func exitCodes() []string {
	return []string{
		"0: success.",
		"1: failure.",
		"2: the command line or a setting is wrong.",
		"3: what was asked for does not exist.",
		"5: a check found what it looks for.",
		"6: a service or the broker cannot be reached, or the setting with its address is missing.",
		"7: some services answered and others did not: what answered was done and printed, and " +
			"standard error and the field missing of the JSON name the rest.",
	}
}

// helpCommand is that of cobra, with an error for a command that does not exist, and with all
// commands as one page.
func helpCommand(e *Env) *cobra.Command {
	var page bool
	c := &cobra.Command{
		Use: "help [COMMAND...]", Short: "Show the help of a command", Args: cobra.ArbitraryArgs,
		Example: "  " + e.App.Name + " help parked redrive",
		RunE: func(c *cobra.Command, args []string) error {
			if page {
				app := e.App
				app.typed = "" // the page is not for one folder
				t := NewText(e.Out)
				t.Lines("", markdown(rootCommand(&Env{App: app})))
				return t.err
			}
			about, rest, err := c.Root().Find(args)
			if err != nil {
				return usage(err)
			}
			if len(rest) > 0 && about.HasSubCommands() {
				return usage(noSuchCommand(about, rest))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
	c.Flags().BoolVar(&page, "markdown", false, "print the help of all commands as a page instead")
	return c
}

// describeCompletion replaces the help of the commands of completion, which cobra has added.
func describeCompletion(app App, root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Print a script that completes words of the command line in a shell"
		c.Long = c.Short + ": commands, flags,\nservices and types of events. bash needs the package " +
			"bash-completion. The help of each shell has the command\nthat loads the script."
		load := map[string]string{"bash": "source <(%s completion bash)",
			"zsh": "source <(%s completion zsh)", "fish": "%s completion fish | source",
			"powershell": "%s completion powershell | Out-String | Invoke-Expression"}
		for _, shell := range c.Commands() {
			shell.Short = "Print the script for " + shell.Name()
			shell.Long, shell.Use = "", shell.Name()
			shell.Example = "  " + fmt.Sprintf(load[shell.Name()], app.Name)
			if flag := shell.Flags().Lookup("no-descriptions"); flag != nil {
				flag.Usage = "complete without descriptions"
			}
		}
	}
}

// markdown returns the help of all commands as a page.
func markdown(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The command line `%s`\n\n", root.Name())
	b.WriteString(wrapped("", "Made from the commands: `"+root.Name()+" help --markdown` prints this "+
		"page, and `"+root.Name()+" COMMAND --help` the part about one command. Data goes to standard "+
		"output, and everything else to standard error."))
	b.WriteString("\n## Flags of all commands\n\n")
	b.WriteString(flagList(root.PersistentFlags()))
	b.WriteString("\n## Exit codes\n\n")
	for _, code := range exitCodes() {
		b.WriteString(wrapped("- ", code))
	}
	for _, c := range root.Commands() {
		section(&b, c)
	}
	return b.String()
}

// section appends the help of a command and of its commands.
func section(b *strings.Builder, c *cobra.Command) {
	if c.Hidden {
		return
	}
	fmt.Fprintf(b, "\n%s %s\n\n", strings.Repeat("#", 1+strings.Count(c.CommandPath(), " ")),
		wordsOf(c))
	b.WriteString(paragraphs(c))
	if c.Runnable() && !c.HasSubCommands() {
		fmt.Fprintf(b, "\nUsage: `%s`\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
		if c.Example != "" {
			b.WriteString("\n```sh\n")
			for line := range strings.SplitSeq(c.Example, "\n") {
				fmt.Fprintf(b, "%s\n", strings.TrimSpace(line))
			}
			b.WriteString("```\n")
		}
	}
	if flags := flagList(c.LocalNonPersistentFlags()); flags != "" {
		b.WriteString("\n" + flags)
	}
	for _, sub := range c.Commands() {
		section(b, sub)
	}
}

// paragraphs returns what a command is for. Lines of its help that are indented are a list.
func paragraphs(c *cobra.Command) string {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	var b strings.Builder
	var words []string
	flush := func() {
		if len(words) > 0 {
			b.WriteString(wrapped("", strings.TrimSuffix(strings.Join(words, " "), ".")+"."))
		}
		words = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		item, listed := strings.CutPrefix(line, "  ")
		switch {
		case !listed:
			words = append(words, line)
		default:
			if len(words) > 0 {
				flush()
				b.WriteString("\n")
			}
			name, what, _ := strings.Cut(item, " ")
			b.WriteString(wrapped("- ", "`"+name+"`: "+strings.TrimSpace(what)))
		}
	}
	flush()
	return b.String()
}

// flagList lists flags with their meaning and default.
func flagList(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, text := pflag.UnquoteUsage(f)
		line := "`" + strings.TrimSpace(name+" "+kind) + "`: " + text
		if !slices.Contains([]string{"", "false", "0", "0s", "[]"}, f.DefValue) {
			line += " (default " + f.DefValue + ")"
		}
		b.WriteString(wrapped("- ", line))
	})
	return b.String()
}

// pageWidth is how many columns a line of a page has.
const pageWidth = 120

// wrapped breaks a paragraph, or an item of a list, into lines.
func wrapped(mark, text string) string {
	var b strings.Builder
	line, indent := mark, strings.Repeat(" ", len(mark))
	for i, word := range strings.Fields(text) {
		if i > 0 && len(line)+1+len(word) > pageWidth {
			b.WriteString(line + "\n")
			line = indent + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	return b.String() + line + "\n"
}
