package admin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// generation is Settings made ready for requests. It is never written once it
// was published.
type generation struct {
	settings  Settings
	open      map[string]bool
	passwords *passwords
	tls       *tls.Config // nil: plain HTTP
}

// compile checks set. Verdicts on passwords are taken over from prev when no
// user has changed.
func compile(set Settings, prev *generation, gate *gate) (*generation, error) {
	g := &generation{settings: set, open: make(map[string]bool, len(set.Open))}
	g.settings.Users = maps.Clone(set.Users)
	var errs []error
	for _, path := range set.Open {
		if !readable(path) {
			errs = append(errs, fmt.Errorf("open: %q is none of %s", path, strings.Join(readablePaths(), " ")))
		}
		g.open[path] = true
	}
	for _, name := range slices.Sorted(maps.Keys(set.Users)) {
		if err := checkHash(set.Users[name]); err != nil {
			errs = append(errs, fmt.Errorf("users: %q: %w", name, err))
		}
		if name == "" || strings.Contains(name, ":") {
			errs = append(errs, fmt.Errorf("users: %q cannot be sent as a user's name: it is empty or has a colon", name))
		}
	}
	if set.TLS != nil {
		g.tls = set.TLS.Clone()
		g.tls.NextProtos = []string{"http/1.1"}
	}
	if err := g.checkAddress(); err != nil {
		errs = append(errs, fmt.Errorf("address: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	g.passwords = prev.passwords
	if !maps.Equal(set.Users, prev.settings.Users) {
		g.passwords = newPasswords(g.settings.Users, gate)
	}
	return g, nil
}

// checkAddress refuses to show a network what is meant for this machine,
// unless somebody has to prove who they are and nobody can listen in.
func (g *generation) checkAddress() error {
	if g.settings.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(g.settings.Address)
	if err != nil {
		return fmt.Errorf("%q is not IP:PORT", g.settings.Address)
	}
	if isLoopback(host) {
		return nil
	}
	var missing []string
	if len(g.settings.Users) == 0 {
		missing = append(missing, "users")
	}
	if g.tls == nil {
		missing = append(missing, "tls")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s is not loopback, which needs [admin] %s", g.settings.Address, strings.Join(missing, " and "))
	}
	return nil
}

// isLoopback reports whether host is a name or an address of this machine
// alone. Nobody else can make *.localhost mean anything.
func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
