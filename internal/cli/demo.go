package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/demo"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

func (p *program) demoCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it working with a certificate made up on the spot",
		Long: `demo makes a throwaway certificate authority, starts an upstream on this host that
demands a client certificate of it, and a proxy in front. It sends one request,
shows the answer, and goes on until Ctrl-C. It leaves nothing behind.`,
		Example: `  mtls-proxy demo
  mtls-proxy demo --listen 127.0.0.1:9090`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), p.out, func(ctx context.Context, s demo.Setup, ready func(string)) error {
				return p.runDemo(ctx, s, listen, ready)
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`ADDRESS` for plain HTTP; port 0 for any that is free")
	return cmd
}

// runDemo is run with the flags that one would give by hand.
func (p *program) runDemo(ctx context.Context, s demo.Setup, listen string, ready func(baseURL string)) (err error) {
	dir, err := os.MkdirTemp("", "mtls-proxy-demo-socket-")
	if err != nil {
		return fmt.Errorf("make a folder for the control socket: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	set := func(flag, key, value string) config.Override {
		return config.Override{Flag: flag, Key: key, Values: []string{value}}
	}
	options := config.Options{Overrides: []config.Override{
		set("--url", "upstream.*.url", s.URL),
		set("--cert", "identity.*.certificate", s.Certificate),
		set("--key", "identity.*.key", s.Key),
		set("--ca", "trust.*.ca", s.CA),
		set("--listen", "listener.*.address", listen),
		set("--admin", "admin.address", ""),
		set("--socket", "admin.socket", filepath.Join(dir, "admin.sock")),
		set("--log-level", "log.level", "error"), // the certificate's short life is no news
	}}
	return service.Run(ctx, service.Options{
		Version: p.version,
		Load:    func([]string) (*config.Config, error) { return config.Load("", options) },
		Stderr:  p.err,
		Ready:   func(st service.Status) { ready("http://" + st.Listeners[0].Addresses[0]) },
	})
}
