package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
)

// runFlags are the flags of run. Each is the value of one key of the
// configuration and wins over the files.
type runFlags struct {
	url, cert, key, serverName, admin, controlSocket, logLevel string
	ca, listen                                                 []string
}

func (p *program) runFlags() *runFlags { return &runFlags{} }

func (f *runFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "", "the upstream's `URL`, https://HOST[:PORT]")
	flags.StringVar(&f.cert, "cert", "", "PEM `FILE` with the client certificate and its chain")
	flags.StringVar(&f.key, "key", "", "PEM `FILE` with the client certificate's private key")
	flags.StringArrayVar(&f.ca, "ca", nil, "PEM `FILE` with the CAs that the upstream's certificate may come from; repeatable")
	flags.StringVar(&f.serverName, "server-name", "", "the `NAME` that the upstream's certificate must have, if not the URL's host")
	flags.StringArrayVar(&f.listen, "listen", nil, "`ADDRESS` for callers, HOST:PORT or unix:/PATH; repeatable")
	flags.StringVar(&f.admin, "admin", "", "`ADDRESS` of the operators' surface; an empty one for none")
	flags.StringVar(&f.controlSocket, "socket", "", "`PATH` of the control socket; an empty one for none")
	flags.StringVar(&f.logLevel, "log-level", "", "`LEVEL` of the log: trace, debug, info, warn or error")
}

// overrides are those flags that were given, the empty ones included.
func (f *runFlags) overrides(flags *pflag.FlagSet) []config.Override {
	var list []config.Override
	add := func(flag, key string, values ...string) {
		if flags.Changed(flag) {
			list = append(list, config.Override{Flag: "--" + flag, Key: key, Values: values})
		}
	}
	add("url", "upstream.*.url", f.url)
	add("cert", "identity.*.certificate", f.cert)
	add("key", "identity.*.key", f.key)
	add("ca", "trust.*.ca", f.ca...)
	add("server-name", "upstream.*.server_name", f.serverName)
	add("listen", "listener.*.address", f.listen...)
	add("admin", "admin.address", f.admin)
	add("socket", "admin.socket", f.controlSocket)
	add("log-level", "log.level", f.logLevel)
	return list
}

// serviceCredentials is where systemd puts the credentials of the running service.
const serviceCredentials = "/run/credentials/" + systemd.ServiceUnit

// source is where a command takes the configuration from.
type source struct {
	path    string // "": flags alone
	options config.Options
}

// load reads the configuration for a service that gets sockets of these names.
func (s source) load(sockets []string) (*config.Config, error) {
	return config.Load(s.path, s.with(sockets))
}

// read is load for a look at what is not sound.
func (s source) read(sockets []string) (*config.Config, config.Problems) {
	return config.Read(s.path, s.with(sockets))
}

// with is the options for a service that gets sockets of these names.
func (s source) with(sockets []string) config.Options {
	o := s.options
	o.Sockets = sockets
	if o.CredentialsDirectory == "" && os.Getenv("CREDENTIALS_DIRECTORY") == "" {
		if _, err := os.Stat(serviceCredentials); err == nil {
			o.CredentialsDirectory = serviceCredentials // from a shell, those of the running service
		}
	}
	return o
}

// unit returns the installed unit if that runs the file, and nil otherwise.
func (s source) unit(ctx context.Context) *systemd.Unit {
	if s.path == "" {
		return nil
	}
	u := systemd.LookUp(ctx)
	if u == nil || !samePath(cmp.Or(u.Config, defaultConfigFile), s.path) {
		return nil
	}
	return u
}

func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// source decides between the file and the flags. A command line that names the
// upstream is complete: the default file is not read then, since what is in it
// would be a surprise. A file given by --config is always read.
func (p *program) source(cmd *cobra.Command, f *runFlags) source {
	s := source{path: p.config, options: config.Options{Overrides: f.overrides(cmd.Flags())}}
	if cmd.Flags().Changed("url") && !cmd.Flags().Changed("config") {
		s.path = ""
	}
	return s
}

func (p *program) runCommand() *cobra.Command {
	flags := p.runFlags()
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve until stopped",
		Long: `run serves until it gets SIGTERM or SIGINT, then finishes what is in progress.
SIGHUP makes it read everything again.

Flags win over the configuration file. With --url and without --config no file
is read at all.`,
		Example: `  mtls-proxy run
  mtls-proxy run --config ./config.toml --listen 127.0.0.1:9080
  mtls-proxy run --url https://api.example --cert c.pem --key k.pem --ca ca.pem --listen 127.0.0.1:8080`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd, flags) },
	}
	flags.register(cmd.Flags())
	return cmd
}

func (p *program) run(cmd *cobra.Command, flags *runFlags) error {
	src := p.source(cmd, flags)
	return service.Run(cmd.Context(), service.Options{
		Version: p.version,
		Load:    src.load,
		Config:  src.path,
		Stderr:  p.err,
		Journal: isJournal(p.err),
	})
}
