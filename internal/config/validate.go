package config

import (
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// validation looks at what no single value shows: whether things fit together.
// It fills in what follows from other values.
type validation struct {
	*reader
	cfg      *Config
	sockets  []string        // names of those that the service manager passes
	unusable map[string]bool // keys whose value was refused; nothing is concluded from them
	top      Origin          // where the files begin
}

func (v *validation) run() {
	v.tables()
	v.upstreams()
	v.listeners()
	v.checkRoutes()
	v.admin()
	v.limits()
	v.unused()
}

// at is where a key was set, else where its table begins, else the top.
func (v *validation) at(path ...string) Origin {
	if p := v.settings[dotted(path)]; p != nil {
		return p.at
	}
	if t, ok := v.reader.tables[dotted(path[:min(2, len(path))])]; ok {
		return t.at
	}
	return v.top
}

// set reports whether the key is in a file or a flag; refused values count.
func (v *validation) set(path ...string) bool { return v.settings[dotted(path)] != nil }

// fine reports whether no value of the keys was refused.
func (v *validation) fine(path ...string) bool {
	return len(v.unusable) == 0 || !v.unusable[dotted(path)] // it is asked for each key of each route
}

// known reports whether the key has the value that was meant for it: it is set
// to a usable one, or left out of a table in which nothing was misread.
func (v *validation) known(path ...string) bool {
	return len(v.unusable)+len(v.doubtful) == 0 || v.fine(path...) && (v.set(path...) || v.understood(path...))
}

func (v *validation) wrong(path []string, fact, hint string) {
	v.problem(v.at(path...), path, fact, hint)
}

func (v *validation) warn(path []string, fact, hint string) {
	v.cfg.Warnings = append(v.cfg.Warnings, Problem{Origin: v.at(path...), Key: dotted(path), Fact: fact, Hint: hint})
}

// refers checks that a value names a table of the kind.
func (v *validation) refers(path []string, kind, name string) {
	if v.exists(kind, name) || !v.known(path...) || !v.understood(kind) || slices.Contains(v.misplaced, name) {
		return
	}
	names := v.names(kind)
	if kind == "listener" {
		names = slices.Sorted(maps.Keys(v.cfg.Listener))
	}
	hint := didYouMean(name, names)
	if hint == "" || !v.set(path...) {
		hint = "add [" + kind + "." + bareOrQuoted(name) + "]"
		if len(names) > 0 && !v.set(path...) {
			hint += ", or set " + path[len(path)-1] + " = " + strings.Join(quoteAll(names), " or ")
		}
	}
	what := kind
	if kind == "trust" {
		what = "trust bundle"
	}
	v.wrong(path, "no "+what+" is named "+quote(name), hint)
}

// exists reports whether there is a table of the kind with that name. Listeners include the default one.
func (v *validation) exists(kind, name string) bool {
	if kind == "listener" {
		return v.cfg.Listener[name] != nil
	}
	_, ok := v.reader.tables[dotted([]string{kind, name})]
	return ok
}

// tables checks identities and trust bundles.
func (v *validation) tables() {
	for _, name := range v.names("identity") {
		id := v.cfg.Identity[name]
		v.needs(id.Certificate, `set it to a PEM file, the client certificate first`, "identity", name, "certificate")
		v.needs(id.Key, `set it to the PEM file of the certificate's key`, "identity", name, "key")
	}
	if len(v.cfg.Trust) == 0 && v.urlByFlag() {
		v.cfg.Trust["default"] = &Trust{}
		v.reader.tables["trust.default"] = named{[]string{"trust", "default"}, Origin{}}
	}
	for name, t := range v.cfg.Trust {
		if len(t.CA) > 0 || !v.fine("trust", name, "ca") {
			continue
		}
		if path := []string{"trust", name, "system_roots"}; v.set(path...) && v.fine(path...) && !t.SystemRoots && v.understood(path...) {
			v.wrong(path, "without ca and without the system roots nothing is trusted", "set ca, or remove system_roots = false")
		}
		t.SystemRoots = true
	}
}

func (v *validation) needs(value, hint string, path ...string) {
	if value == "" && v.fine(path...) && v.understood(path...) {
		v.wrong(path, "is missing", hint)
	}
}

func (v *validation) urlByFlag() bool {
	for _, p := range v.settings {
		if p.path[0] == "upstream" && p.path[len(p.path)-1] == "url" && p.at.Flag != "" {
			return true
		}
	}
	return false
}

func (v *validation) listeners() {
	taken := make(map[string][]string) // address to the key that has it
	for _, name := range slices.Sorted(maps.Keys(v.cfg.Listener)) {
		l := v.cfg.Listener[name]
		path := []string{"listener", name, "address"}
		if !v.set(path...) && len(l.Address) == 0 && !slices.Contains(v.sockets, name) {
			v.needs("", "set it, or write address = [] when a systemd socket with FileDescriptorName="+name+" takes its place", path...)
		}
		var hasUnix bool
		for i, address := range l.Address {
			file, unix := strings.CutPrefix(address, "unix:")
			if hasUnix = hasUnix || unix; unix {
				l.Address[i] = "unix:" + filepath.Clean(file)
			}
			v.take(taken, l.Address[i], path)
			v.warnReach(path, address)
		}
		for _, only := range []string{"unix_mode", "unix_group"} {
			if p := []string{"listener", name, only}; v.set(p...) && !hasUnix && len(l.Address) > 0 {
				v.warn(p, "has no effect: no address of this listener is a Unix socket", "")
			}
		}
		if p := []string{"listener", name, "max_connections_per_caller"}; v.set(p...) && l.MaxConnectionsPerCaller > v.cfg.Limits.MaxConnections {
			v.warn(p, "has no effect: limits.max_connections is "+strconv.Itoa(v.cfg.Limits.MaxConnections), "")
		}
		for i, host := range l.AllowedHosts {
			l.AllowedHosts[i] = canonicalHost(host)
		}
	}
	if v.cfg.Admin.Address != "" {
		v.take(taken, v.cfg.Admin.Address, []string{"admin", "address"})
	}
	if v.cfg.Admin.Socket != "" {
		v.take(taken, "unix:"+v.cfg.Admin.Socket, []string{"admin", "socket"})
	}
}

// take notes that key binds address, which nobody else may do.
func (v *validation) take(taken map[string][]string, address string, key []string) {
	if !v.known(key...) {
		return
	}
	for _, other := range slices.Sorted(maps.Keys(taken)) {
		if overlap(address, other) {
			before := taken[other]
			if !v.set(key...) && v.set(before...) { // the one that somebody wrote is the one to change
				key, before, address, other = before, key, other, address
			}
			fact := quote(address) + " is taken by " + dotted(before)
			if other != address {
				fact = quote(address) + " and " + quote(other) + " of " + dotted(before) + " cannot both be bound"
			}
			if v.set(before...) {
				fact += " (" + v.at(before...).String() + ")"
			} else {
				fact += ", by default"
			}
			v.wrong(key, fact, "choose another port or path")
			return
		}
	}
	taken[address] = key
}

// overlap reports whether a and b cannot both be bound. Port 0 is a new one
// each time.
func overlap(a, b string) bool {
	if strings.HasPrefix(a, "unix:") || strings.HasPrefix(b, "unix:") {
		return a == b
	}
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	if errX != nil || errY != nil || x.Port() != y.Port() || x.Port() == 0 {
		return false
	}
	xa, ya := x.Addr().Unmap(), y.Addr().Unmap()
	return xa == ya || (xa.IsUnspecified() || ya.IsUnspecified()) && (xa.Is4() == ya.Is4() || xa.Is6() && xa.IsUnspecified() || ya.Is6() && ya.IsUnspecified())
}

func (v *validation) warnReach(path []string, address string) {
	if a, err := netip.ParseAddrPort(address); err == nil && !a.Addr().Unmap().IsLoopback() {
		v.warn(path, quote(address)+" is not loopback: whoever reaches it uses our client certificate, over plain HTTP", "keep it behind a firewall, or listen on 127.0.0.1")
	}
}

func (v *validation) admin() {
	a := &v.cfg.Admin
	v.pairOfTLS(a)
	address, err := netip.ParseAddrPort(a.Address)
	if err != nil || address.Addr().Unmap().IsLoopback() || !v.known("admin", "address") {
		return
	}
	var missing []string
	if len(a.Users) == 0 && !v.someUnusable("admin.users.") {
		missing = append(missing, "[admin.users]")
	}
	if a.TLS.Certificate == "" && !v.someUnusable("admin.tls.") && !v.set("admin", "tls", "key") && !v.set("admin", "tls", "client_ca") {
		missing = append(missing, "[admin.tls]")
	}
	if len(missing) > 0 && v.understood("admin") && v.understood("admin", "tls") && v.understood("admin", "users") {
		v.wrong([]string{"admin", "address"}, quote(a.Address)+" is not loopback and needs users and TLS", "add "+strings.Join(missing, " and ")+", or listen on 127.0.0.1")
	}
}

func (v *validation) pairOfTLS(a *Admin) {
	tls := []string{"admin", "tls"}
	certificate, key, ca := append(tls[:2:2], "certificate"), append(tls[:2:2], "key"), append(tls[:2:2], "client_ca")
	switch {
	case v.someUnusable("admin.tls.") || !v.understood("admin", "tls"):
	case a.TLS.Certificate != "" && a.TLS.Key == "":
		v.wrong(certificate, "has no key", "set key beside it")
	case a.TLS.Key != "" && a.TLS.Certificate == "":
		v.wrong(key, "has no certificate", "set certificate beside it")
	case a.TLS.ClientCA != "" && a.TLS.Certificate == "":
		v.wrong(ca, "asks for client certificates without TLS", "set certificate and key beside it")
	case a.TLS.Certificate != "" && a.Address == "":
		v.warn(certificate, "has no effect: admin.address is empty", "")
	}
}

func (v *validation) someUnusable(prefix string) bool {
	for key := range v.unusable {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func (v *validation) limits() {
	l := &v.cfg.Limits
	line, head := []string{"limits", "max_request_line"}, []string{"limits", "max_header_bytes"}
	if l.MaxRequestLine.Bytes > l.MaxHeaderBytes.Bytes && v.known(line...) && v.known(head...) {
		at := line
		if !v.set(line...) {
			at = head
		}
		v.wrong(at, "a request line of "+l.MaxRequestLine.String()+" does not fit into a head of "+l.MaxHeaderBytes.String(), "make max_header_bytes the larger one")
	}
	v.shared()
}

// shared checks the limit that several hosts have in common.
func (v *validation) shared() {
	r := &v.cfg.RateLimit
	if r.Key == "" {
		r.Key = RateKeyAll
	}
	if r.Shared != "" || !v.fine("rate_limit", "shared") || !v.understood("rate_limit") {
		return
	}
	if r.SharedPasswordFile != "" {
		v.wrong([]string{"rate_limit", "shared_password_file"}, "belongs to shared, and that is not set", `write shared = "redis://HOST:PORT/0", or remove it`)
	}
	if path := []string{"rate_limit", "shared_failure"}; v.set(path...) {
		v.warn(path, "has no effect: shared is not set", "")
	}
}

// unused warns of tables that nothing leads to.
func (v *validation) unused() {
	uses := make(map[string]bool)
	for _, route := range v.cfg.Route {
		uses["upstream."+route.Upstream] = true
	}
	for _, u := range v.cfg.Upstream {
		uses["identity."+u.Identity], uses["trust."+u.Trust] = true, true
	}
	for _, kind := range []string{"identity", "trust", "upstream"} {
		for _, name := range v.names(kind) {
			if path := []string{kind, name}; !uses[kind+"."+name] {
				by := "no upstream uses it"
				if kind == "upstream" {
					by = "no route leads to it"
				}
				v.warn(path, by, "")
			}
		}
	}
}
