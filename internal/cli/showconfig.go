package cli

import (
	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

// The formats of show-config.
const (
	formatText = "text"
	formatTOML = "toml"
	formatJSON = "json"
)

func (p *program) showConfigCommand() *cobra.Command {
	flags := p.runFlags()
	var format string
	cmd := &cobra.Command{
		Use:   "show-config",
		Short: "Print the configuration as it takes effect",
		Long: `show-config prints every key with its value and where that comes from: a file
and line, a flag, or the default. Secrets are never shown.`,
		Example: `  mtls-proxy show-config
  mtls-proxy show-config --config ./config.toml --format json | jq .limits`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.showConfig(cmd, flags, format) },
	}
	flags.register(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", formatText, "text, toml or json")
	return cmd
}

func (p *program) showConfig(cmd *cobra.Command, flags *runFlags, format string) error {
	if format != formatText && format != formatTOML && format != formatJSON {
		return usagef("--format is text, toml or json, not %q", format)
	}
	src := p.source(cmd, flags)
	cfg, err := src.load(src.unit(cmd.Context()).Names())
	if err != nil {
		return service.BadConfiguration{Err: err}
	}
	switch format {
	case formatTOML:
		return cfg.WriteTOML(p.out)
	case formatJSON:
		return cfg.WriteJSON(p.out)
	}
	return cfg.WriteText(p.out)
}
