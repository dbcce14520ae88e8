package service

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/reload"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// operators follows the [admin] table.
type operators struct {
	server  *admin.Server
	systemd bool         // it started us, and made the socket's folder
	warn    func(string) // logs a warning of a change that took effect

	mu       sync.Mutex // guards warnings
	warnings []string
}

// Prepare binds what cfg adds. An address that is taken is a warning, not an
// error: callers are served all the same.
func (o *operators) Prepare(_ context.Context, cfg *config.Config) (reload.Change, error) {
	set, err := adminSettings(cfg)
	set.SocketOptional = set.SocketOptional && !o.systemd
	if err != nil {
		return nil, BadConfiguration{located(cfg, err)}
	}
	change, err := o.server.Prepare(set)
	if err != nil {
		return nil, BadConfiguration{err}
	}
	return &operatorsChange{o, change}, nil
}

type operatorsChange struct {
	o      *operators
	change *admin.Change
}

func (c *operatorsChange) Abort() { c.change.Abort() }

func (c *operatorsChange) Commit() {
	warnings := c.change.Warnings()
	c.change.Commit()
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	for _, w := range warnings {
		c.o.warn(w)
	}
	c.o.warnings = warnings
}

func (o *operators) status() (addresses, warnings []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.server.Addresses(), slices.Clone(o.warnings)
}

// adminSettings loads what [admin] names. A socket at the default path, whose folder only the packaged unit makes, may be
// missing.
func adminSettings(cfg *config.Config) (admin.Settings, error) {
	a := cfg.Admin
	set := admin.Settings{
		Address:        a.Address,
		Socket:         a.Socket,
		SocketOptional: cfg.Origin("admin.socket").IsDefault(),
		Users:          a.Users,
		Open:           a.Open,
	}
	if a.TLS.Certificate == "" || a.TLS.Key == "" { // one alone is not sound, and told already
		return set, nil
	}
	set.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	id, err := identity.Load(identity.Source{Name: "admin.tls", Certificate: a.TLS.Certificate, Key: a.TLS.Key})
	if err == nil {
		set.TLS.Certificates = []tls.Certificate{id.Certificate}
	}
	if a.TLS.ClientCA != "" {
		clients, errClients := trust.Load(trust.Source{Name: "admin.tls", CA: []string{a.TLS.ClientCA}})
		if errClients == nil {
			set.TLS.ClientCAs, set.TLS.ClientAuth = clients.Roots, tls.RequireAndVerifyClientCert
		}
		err = errors.Join(err, errClients)
	}
	return set, err
}
