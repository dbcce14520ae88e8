// Package cli is what people and unit files type: the commands with their
// flags, what they print, and how they exit.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

// The exit codes. systemd's units, packages and scripts rely on them.
const (
	exitOK     = 0  // done, or stopped on request
	exitFailed = 1  // could not do it
	exitUsage  = 2  // was asked in a way it does not understand
	exitConfig = 78 // the configuration is at fault; EX_CONFIG of sysexits.h
)

const defaultConfigFile = "/etc/mtls-proxy/config.toml"

// program carries what every command shares. Only its commands write to out.
type program struct {
	version string
	in      io.Reader
	out     io.Writer
	err     io.Writer
	config  string // --config
}

// Main runs the command that args name and returns the code to exit with. It
// returns when the command is done or, for those that keep running, some time
// after ctx ends. An empty version means the one that the build recorded.
func Main(ctx context.Context, version string, args []string, in io.Reader, out, err io.Writer) int {
	p := &program{version: versionOr(version), in: in, out: out, err: err}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	cmd, runErr := root.ExecuteContextC(ctx)
	return p.report(cmd, runErr)
}

func (p *program) root() *cobra.Command {
	run := p.runFlags()
	var showConfig, showVersion bool
	root := &cobra.Command{
		Use:   "mtls-proxy [command]",
		Short: "Plain HTTP for local programs, mutual TLS to the services they call",
		Long: `mtls-proxy accepts plain HTTP from programs on this host and forwards it over
TLS to services that demand a client certificate. The programs never touch a key.

Without a command it does what "run" does.`,
		Example: `  mtls-proxy demo                     see it work, with a certificate made up on the spot
  mtls-proxy check                    look for mistakes in ` + defaultConfigFile + `
  mtls-proxy run --url https://api.example --cert c.pem --key k.pem --ca ca.pem`,
		Args:          p.noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case showVersion:
				return p.printVersion()
			case showConfig:
				return p.showConfig(cmd, run, formatText)
			}
			return p.run(cmd, run)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.Contains(err.Error(), "--admin-socket") { // its name in earlier versions
			return usagef("%w; the control socket is --socket", err)
		}
		return usageError{err}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.PersistentFlags().StringVar(&p.config, "config", defaultConfigFile, "the configuration `FILE`; conf.d/*.toml beside it is read too")
	_ = root.MarkPersistentFlagFilename("config", "toml") // fails for flags that do not exist only
	// Not cobra's own, which takes a template: those can call methods by name, so the linker would keep all there are, a
	// third of the program.
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "print the version and exit")
	root.Flags().BoolVar(&showConfig, "show-config", false, "print the effective configuration and exit")
	run.register(root.Flags())
	root.AddCommand(
		p.runCommand(), p.checkCommand(), p.showConfigCommand(), p.reloadCommand(), p.statusCommand(), p.endpointCommand(),
		p.demoCommand(), p.hashPasswordCommand(), p.versionCommand(), p.completionCommand(),
	)
	root.SetHelpCommand(p.helpCommand())
	return root
}

// usageError is a command line that we do not understand, in contrast to one
// that we understood and could not carry out.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// noArgs refuses positional arguments; on the root command such an argument is
// a command that we do not have.
func (p *program) noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasParent() {
		return usagef("%s takes no argument, got %q", cmd.Name(), args[0])
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("unknown command %q, did you mean %q?", args[0], near[0])
	}
	return usagef("unknown command %q", args[0])
}

// report tells on stderr why a command failed and chooses the exit code.
func (p *program) report(cmd *cobra.Command, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(p.err, "mtls-proxy: %v\n\thint: %s --help\n", usage, cmd.CommandPath())
		return exitUsage
	}
	if told, ok := errors.AsType[serviceExit](err); ok {
		return told.code
	}
	code, text := verdict(err)
	if _, known := errors.AsType[service.Recorded](err); !known {
		p.complain(text)
	}
	return code
}

// complain writes text to stderr, each line marked as an error where stderr is
// the journal's: it takes every line for a record of its own.
func (p *program) complain(text string) {
	text = strings.TrimRight(text, "\n")
	mark := ""
	if isJournal(p.err) {
		mark = "<3>"
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(p.err, "%s%s\n", mark, line)
	}
}
