package systemd

import (
	"bytes"
	"context"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ServiceUnit is the unit that the packages install.
const ServiceUnit = "mtls-proxy.service"

// showTimeout bounds a question to the service manager, which may be busy or stopped.
const showTimeout = 5 * time.Second

// Unit is the installed service as the service manager has loaded it, drop-ins included.
type Unit struct {
	// Config is the file that it runs with, as --config names it; "" for the default.
	Config string
	// User runs it, with these groups beside the user's own.
	User   string
	Groups []string
	// ReadOnly says that the service can write to, and bind sockets in, the folders Writable alone.
	ReadOnly bool
	Writable []string
	// PrivateTmp says that its /tmp and /var/tmp are not those of callers.
	PrivateTmp bool
	// Sockets are those it gets at its next start.
	Sockets []SocketUnit
	// Stale are the units whose files changed since the service manager read them.
	Stale []string
}

// SocketUnit is one socket unit of the service.
type SocketUnit struct {
	ID        string   // "mtls-proxy.socket"
	Name      string   // FileDescriptorName=: the listener
	Addresses []string // as a listener of the configuration writes them
}

// Passed returns the addresses of the sockets by the name under which the service gets them.
func (u *Unit) Passed() map[string][]string {
	passed := make(map[string][]string)
	if u == nil {
		return passed
	}
	for _, s := range u.Sockets {
		passed[s.Name] = append(passed[s.Name], s.Addresses...)
	}
	return passed
}

// Names returns the names under which the service gets sockets.
func (u *Unit) Names() []string { return slices.Sorted(maps.Keys(u.Passed())) }

// LookUp asks the service manager about the installed unit. It returns nil where there is no such unit, or no service manager.
func LookUp(ctx context.Context) *Unit {
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	service := show(ctx, "Id,LoadState,NeedDaemonReload,ExecStart,User,SupplementaryGroups,ReadWritePaths,ProtectSystem,PrivateTmp,Wants,TriggeredBy",
		ServiceUnit)
	if len(service) != 1 || service[0].get("LoadState") != "loaded" {
		return nil
	}
	u := unitOf(service[0])
	var ids []string
	for _, id := range strings.Fields(service[0].get("TriggeredBy")) {
		if strings.HasSuffix(id, ".socket") {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return u
	}
	slices.Sort(ids)
	wanted := strings.Fields(service[0].get("Wants")) // of Sockets=
	for _, p := range show(ctx, "Id,LoadState,ActiveState,NeedDaemonReload,FileDescriptorName,Listen", ids...) {
		id := p.get("Id")
		if p.get("NeedDaemonReload") == "yes" {
			u.Stale = append(u.Stale, id)
		}
		if p.get("LoadState") == "loaded" && (p.get("ActiveState") == "active" || slices.Contains(wanted, id)) {
			u.Sockets = append(u.Sockets, SocketUnit{ID: id, Name: p.get("FileDescriptorName"), Addresses: streams(p["Listen"])})
		}
	}
	return u
}

// properties of one unit. Some occur more than once.
type properties map[string][]string

func (p properties) get(key string) string {
	if v := p[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// show returns the properties of units; none when the service manager does not answer.
func show(ctx context.Context, keys string, units ...string) []properties {
	out, err := exec.CommandContext(ctx, "systemctl", append([]string{"show", "--no-pager", "--property=" + keys}, units...)...).Output() //nolint:gosec // names come from the service manager
	if err != nil {
		return nil
	}
	return parseShow(out)
}

// parseShow reads what systemctl show prints: lines of KEY=VALUE, and an empty line between two units.
func parseShow(out []byte) (units []properties) {
	for block := range bytes.SplitSeq(out, []byte("\n\n")) {
		p := make(properties)
		for line := range strings.SplitSeq(string(block), "\n") {
			if key, value, ok := strings.Cut(line, "="); ok {
				p[key] = append(p[key], value)
			}
		}
		if len(p) > 0 {
			units = append(units, p)
		}
	}
	return units
}

func unitOf(p properties) *Unit {
	u := &Unit{
		Config:     configOf(p.get("ExecStart")),
		User:       p.get("User"),
		Groups:     strings.Fields(p.get("SupplementaryGroups")),
		ReadOnly:   p.get("ProtectSystem") == "strict",
		PrivateTmp: p.get("PrivateTmp") == "yes",
	}
	for _, path := range strings.Fields(p.get("ReadWritePaths")) {
		u.Writable = append(u.Writable, filepath.Clean(strings.TrimLeft(path, "-+")))
	}
	if p.get("NeedDaemonReload") == "yes" {
		u.Stale = append(u.Stale, ServiceUnit)
	}
	return u
}

// configOf finds --config in "{ path=… ; argv[]=/usr/bin/mtls-proxy run --config FILE ; … }".
func configOf(execStart string) string {
	_, args, _ := strings.Cut(execStart, "argv[]=")
	args, _, _ = strings.Cut(args, " ; ")
	words := strings.Fields(args)
	for i, word := range words {
		if file, ok := strings.CutPrefix(word, "--config="); ok {
			return file
		}
		if word == "--config" && i+1 < len(words) {
			return words[i+1]
		}
	}
	return ""
}

// streams are the addresses in lines such as "127.0.0.1:8080 (Stream)".
func streams(listen []string) (addresses []string) {
	for _, l := range listen {
		address, ok := strings.CutSuffix(l, " (Stream)")
		if !ok {
			continue // a datagram or a FIFO; the service closes it with a record
		}
		if strings.HasPrefix(address, "/") {
			address = "unix:" + address
		}
		addresses = append(addresses, address)
	}
	return addresses
}
