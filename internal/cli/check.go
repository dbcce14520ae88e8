package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
)

func (p *program) checkCommand() *cobra.Command {
	flags := p.runFlags()
	cmd := &cobra.Command{
		Use:   "check [file]",
		Short: "Look for mistakes in the configuration and the files it names",
		Long: `check reads the configuration, loads every certificate, key and CA that it
names, and refuses files that others may write to. It opens no port and no
connection. All problems go to stderr, each with its place. The file that the
installed service runs with is also compared with its units, and root judges it
with the rights of the service's user.`,
		Example: `  mtls-proxy check
  mtls-proxy check ./config.toml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("check takes one file, got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			src := p.source(cmd, flags)
			if len(args) == 1 {
				if cmd.Flags().Changed("config") {
					return usagef("check takes a file or --config, not both")
				}
				src.path = args[0]
			}
			return p.check(cmd.Context(), src)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

func (p *program) check(ctx context.Context, src source) error {
	unit := src.unit(ctx)
	if done, err := p.asServiceUser(ctx, unit); done {
		return err
	}
	cfg, problems := src.read(unit.Names())
	found, err := service.Check(ctx, cfg, problems, unit)
	for _, w := range found.Warnings {
		fmt.Fprintf(p.err, "warning: %s\n", w)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.out, summary(cfg, found, unit))
	return err
}

// summary is what a sound configuration amounts to.
func summary(cfg *config.Config, found service.Found, unit *systemd.Unit) string {
	var b strings.Builder
	files := "no file, flags alone"
	if len(cfg.Files) > 0 {
		files = named(cfg.Files)
	}
	fmt.Fprintf(&b, "sound: %s\n", files)
	if len(cfg.Masked) > 0 {
		fmt.Fprintf(&b, "masked: %s\n", named(cfg.Masked))
	}
	table, passed := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0), unit.Passed()
	for _, name := range slices.Sorted(maps.Keys(cfg.Listener)) {
		address, from := strings.Join(cfg.Listener[name].Address, " "), ""
		if in := passed[name]; len(in) > 0 {
			address, from = strings.Join(in, " "), "from systemd"
		} else if address == "" {
			address = "socket from systemd"
		}
		fmt.Fprintf(table, "listener\t%s\t%s\t%s\n", name, address, from)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstream)) {
		u := cfg.Upstream[name]
		fmt.Fprintf(table, "upstream\t%s\t%s\tidentity %s, trust %s\n", name, u.Target(), u.Identity, u.Trust)
	}
	for _, id := range found.Identities {
		fmt.Fprintf(table, "identity\t%s\t%s\tserial %s, %s\n", id.Name, id.Subject, id.Serial, expiry(id.NotAfter, id.DaysLeft))
	}
	table.Flush()
	return b.String()
}

// named lists files by their names as they may be printed.
func named(files []string) string {
	var b strings.Builder
	for i, f := range files {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(config.Origin{File: f}.String())
	}
	return b.String()
}

// verdict chooses the exit code for err and the text that goes to stderr.
func verdict(err error) (code int, text string) {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		return exitConfig, problems.Error()
	}
	if refused, ok := errors.AsType[service.BadConfiguration](err); ok {
		return exitConfig, "mtls-proxy: " + strings.ReplaceAll(refused.Error(), "\n", "\nmtls-proxy: ")
	}
	return exitFailed, "mtls-proxy: " + err.Error()
}
