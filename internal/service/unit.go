package service

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/listener"
	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
)

// beside compares cfg with the unit that runs it: the sockets that it gets, where it may bind others, and which group it
// may give them.
func (f *Found) beside(cfg *config.Config, unit *systemd.Unit) (errs []error) {
	warnings, errs := listener.Judge(specs(cfg), unit.Passed())
	f.Warnings = append(f.Warnings, warnings...)
	for _, id := range unit.Stale {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s has changed since systemd read it: run systemctl daemon-reload", id))
	}
	var found config.Problems
	for _, name := range sortedKeys(cfg.Listener) {
		l, key := cfg.Listener[name], "listener."+name
		if len(unit.Passed()[name]) > 0 {
			continue // bound by systemd
		}
		var bound bool
		for _, address := range l.Address {
			path, isUnix := strings.CutPrefix(address, "unix:")
			if bound = bound || isUnix; !isUnix {
				continue
			}
			if fact := unreachable(path, unit); fact != "" {
				found = append(found, config.Problem{Origin: cfg.Origin(key + ".address"), Key: key + ".address", Fact: fact,
					Hint: fmt.Sprintf("write %q, or give it a socket unit", "unix:/run/mtls-proxy/"+filepath.Base(path))})
			}
		}
		if bound && l.UnixGroup != "" && !unit.IsMember(l.UnixGroup) {
			found = append(found, config.Problem{Origin: cfg.Origin(key + ".unix_group"), Key: key + ".unix_group",
				Fact: fmt.Sprintf("user %q of %s is no member of group %q, and cannot give it the socket", unit.User, systemd.ServiceUnit, l.UnixGroup),
				Hint: fmt.Sprintf("usermod -aG %s %s && systemctl restart mtls-proxy", l.UnixGroup, unit.User)})
		}
	}
	if s := cfg.Admin.Socket; s != "" {
		if fact := unreachable(s, unit); fact != "" {
			found = append(found, config.Problem{Origin: cfg.Origin("admin.socket"), Key: "admin.socket", Fact: fact,
				Hint: fmt.Sprintf("write %q", "/run/mtls-proxy/"+filepath.Base(s))})
		}
	}
	if len(found) > 0 {
		errs = append(errs, found)
	}
	return errs
}

// unreachable says why a socket that the service binds at path would not be there for callers; "" if it would.
func unreachable(path string, unit *systemd.Unit) string {
	within := func(folder string) bool { return strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/") }
	switch {
	case unit.PrivateTmp && (within("/tmp") || within("/var/tmp")):
		return fmt.Sprintf("%s is in a folder that %s has for itself: callers would not see the socket", path, systemd.ServiceUnit)
	case unit.ReadOnly && !slices.ContainsFunc(unit.Writable, within):
		return fmt.Sprintf("%s cannot bind %s: its sandbox lets it write to %s alone", systemd.ServiceUnit, path, strings.Join(unit.Writable, " "))
	}
	return ""
}
