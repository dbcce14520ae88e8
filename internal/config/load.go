package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// Options are what Load needs besides the path; the zero value is a plain run.
type Options struct {
	// Overrides come from flags and win over the files.
	Overrides []Override
	// CredentialsDirectory replaces $CREDENTIALS_DIRECTORY.
	CredentialsDirectory string
	// Sockets are the names of the sockets that the service manager passes. A listener that has one takes its addresses
	// from it unless a file or flag sets them, and the default listener is there if its socket is.
	Sockets []string
}

// Override is the value of one key, given on the command line. Lists take all
// Values, other keys exactly one, written as in the file without quotes. A "*"
// in Key stands for the only table of its kind, or for the one that has a
// default name ("default"; listeners: "http").
//
//	Override{Flag: "--url", Key: "upstream.*.url", Values: []string{u}}
//	Override{Flag: "--cert", Key: "identity.*.certificate", Values: []string{path}}
//	Override{Flag: "--key", Key: "identity.*.key", Values: []string{path}}
//	Override{Flag: "--ca", Key: "trust.*.ca", Values: paths}
//	Override{Flag: "--listen", Key: "listener.*.address", Values: addresses}
//
// Relative paths start from the working directory. When an override gives the
// upstream's URL and there is no trust table at all, the system roots count.
type Override struct {
	Flag   string
	Key    string
	Values []string
}

// source is the content of one file.
type source struct {
	file string // as the operator would name it
	data []byte
}

// defaultListener is there without a table if no other is, or if the service manager passes a socket of that name.
const defaultListener = "http"

// dropInFolder stands beside the main file.
const dropInFolder = "conf.d"

// maxFileSize is far beyond any configuration that somebody wrote.
const maxFileSize = 4 << 20

// Load reads the main file at path, conf.d/*.toml beside it and o.Overrides,
// and returns the effective configuration or, as Problems, everything that is
// wrong with them. With an empty path there are only the overrides. It opens
// no file that the configuration names.
func Load(path string, o Options) (*Config, error) {
	cfg, problems := Read(path, o)
	if len(problems) > 0 {
		return nil, problems
	}
	return cfg, nil
}

// Read is Load for a look at a configuration that is not sound: it returns as
// much of it as was understood, beside what is wrong. Nothing can be built from
// that, as values that were refused are left at their defaults or empty.
func Read(path string, o Options) (*Config, Problems) {
	if o.CredentialsDirectory == "" {
		o.CredentialsDirectory = os.Getenv("CREDENTIALS_DIRECTORY")
	}
	if path == "" {
		return parse(nil, o, nil, true)
	}
	var reader files.Reader
	paths, problems := []string{path}, Problems(nil)
	dropIns := filepath.Join(filepath.Dir(path), dropInFolder)
	names, bad, err := reader.List(dropIns)
	whole := err == nil || errors.Is(err, fs.ErrNotExist)
	if !whole {
		problems = Problems{unreadable(dropIns, err)}
	}
	var masked []string
	for _, name := range names {
		switch file := filepath.Join(dropIns, name); {
		case !strings.HasSuffix(name, ".toml"), strings.HasPrefix(name, "."):
		case files.Masked(file):
			masked = append(masked, file)
		default:
			paths = append(paths, file)
		}
	}
	var sources []source
	public := make(map[string]fs.FileMode) // readable for all users
	for _, path := range paths {
		f, err := reader.Read(path, maxFileSize)
		if err != nil {
			problems, whole = append(problems, unreadable(path, err)), false
			continue
		}
		bad = append(bad, f.Problems...)
		if f.Public() {
			public[path] = f.Mode
		}
		sources = append(sources, source{path, f.Data})
	}
	for _, p := range bad {
		problems = append(problems, Problem{Origin: Origin{File: p.Path}, Fact: p.Fact, Hint: p.Hint})
	}
	cfg, problems := parse(sources, o, problems, whole)
	cfg.Masked = masked
	cfg.Warnings = append(cfg.Warnings, exposed(cfg, public)...)
	Problems(cfg.Warnings).InOrder(cfg.Files)
	return cfg, problems
}

// exposed warns of secrets in files that everybody may read.
func exposed(cfg *Config, public map[string]fs.FileMode) (warnings Problems) {
	for key, at := range cfg.origins {
		if mode, ok := public[at.File]; ok && isSecret(key) {
			warnings = append(warnings, Problem{
				Origin: at, Key: key, Fact: fmt.Sprintf("everybody on this host may read this secret (mode %04o)", mode.Perm()),
				Hint: "chgrp mtls-proxy " + at.File + " && chmod 640 " + at.File,
			})
		}
	}
	return warnings
}

// isSecret reports whether the value of a key is most likely a secret: a field that authenticates its sender, or the hash of a password.
func isSecret(key string) bool {
	if strings.HasPrefix(key, "admin.users.") {
		return true
	}
	for _, edit := range [...]string{".request_headers.set.", ".request_headers.add."} {
		if _, name, ok := strings.Cut(key, edit); ok {
			name = strings.ToLower(name)
			return slices.ContainsFunc([]string{"auth", "cookie", "token", "key", "secret", "password", "credential", "session"}, func(word string) bool {
				return strings.Contains(name, word)
			})
		}
	}
	return false
}

// unreadable says why a file or folder cannot be read, without its name, which
// stands before it.
func unreadable(name string, err error) Problem {
	p := Problem{Origin: Origin{File: name}, Fact: err.Error()}
	if found, ok := errors.AsType[*files.Problem](err); ok {
		p.Fact, p.Hint = found.Fact, found.Hint
		if found.Err != nil {
			p.Fact += ": " + found.Err.Error()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Base(filepath.Dir(name)) == dropInFolder:
		p.Hint = "remove the link, or create what it leads to"
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "name another file with --config, or give everything by flags; mtls-proxy run --help shows how"
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "run as root or as a member of the file's group"
	}
	return p
}

// parse makes a configuration of the content of files and overrides. The
// problems so far are reported together with what it finds. Unless the sources
// are the whole, nothing is concluded from what they lack.
func parse(sources []source, o Options, problems Problems, whole bool) (*Config, Problems) {
	r := newReader()
	if !whole {
		r.doubt(nil)
	}
	var paths []string
	for _, s := range sources {
		paths = append(paths, s.file)
		doc, sound := document(s.file, s.data)
		r.read(folder(s.file), doc)
		if !sound || r.twice {
			continue
		}
		if p := consistent(s.file, s.data, doc); p != nil {
			r.problems = append(r.problems, *p)
		}
	}
	for _, over := range o.Overrides {
		r.override(over)
	}
	cfg := r.config(o.Sockets)
	cfg.Files = paths
	v := validation{reader: r, cfg: cfg, sockets: o.Sockets, unusable: r.decode(cfg, o.CredentialsDirectory), top: top(paths)}
	v.run()
	problems = append(problems, r.problems...)
	problems.InOrder(paths)
	Problems(cfg.Warnings).InOrder(paths)
	return cfg, problems
}

// folder is where relative paths in the file start.
func folder(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return filepath.Dir(file)
}

// top is the place of what is missing altogether.
func top(files []string) Origin {
	if len(files) == 0 {
		return Origin{}
	}
	return Origin{File: files[0], Line: 1, Column: 1}
}

// override replaces a setting by that of a flag.
func (r *reader) override(o Override) {
	at := Origin{Flag: o.Flag}
	path, ok := r.meant(o)
	if !ok {
		return
	}
	n, ok := r.resolve(path, at)
	if !ok || n.leaf == nil {
		r.problem(at, path, "is not a key", "")
		return
	}
	r.note(path, at)
	p := &placed{path: path, leaf: n.leaf, at: at, folder: workingDirectory()}
	var items []value
	for _, text := range o.Values {
		items = append(items, value{shape: written(n.leaf.kind, text), text: text, at: at})
	}
	switch n.leaf.kind {
	case list, choices, oneOrList, pins, paths, links, codes:
		p.val = value{shape: anArray, items: items, at: at}
	default:
		if len(items) != 1 {
			r.problem(at, path, "takes one value", "give the flag once")
			return
		}
		p.val = items[0]
	}
	for _, other := range instead(path) {
		r.drop(other)
	}
	r.settings[dotted(path)] = p
	r.order = append(r.order, p)
}

// instead lists the settings whose place that at path takes: itself, and for
// the place of an upstream the other ways to say it, with what says more about
// them.
func instead(path []string) [][]string {
	if last := path[len(path)-1]; path[0] != "upstream" || len(path) != 3 || last != "url" && last != "urls" && last != "srv" {
		return [][]string{path}
	}
	var list [][]string
	for _, name := range []string{"url", "urls", "backup_urls", "srv", "weights"} {
		list = append(list, append(path[:2:2], name))
	}
	return list
}

// drop forgets the setting at path, or all that stand in the table there.
func (r *reader) drop(path []string) {
	r.order = slices.DeleteFunc(r.order, func(p *placed) bool {
		gone := len(p.path) >= len(path) && slices.Equal(p.path[:len(path)], path)
		if gone {
			delete(r.settings, dotted(p.path))
		}
		return gone
	})
}

// written is the shape that text has as the value of a flag.
func written(k kind, text string) shape {
	switch k {
	case boolean:
		if text == "true" || text == "false" {
			return aBoolean
		}
	case integer, number, codes:
		if isNumber(text) && !strings.Contains(text, ".") {
			return anInteger
		}
		if isNumber(text) {
			return aFloat
		}
	}
	return aString
}

// meant puts the table that the operator has in mind in the place of "*".
func (r *reader) meant(o Override) (path []string, ok bool) {
	path = strings.Split(o.Key, ".")
	if len(path) < 2 || path[1] != "*" {
		return path, true
	}
	fallback := "default"
	if path[0] == "listener" {
		fallback = defaultListener
	}
	names := r.names(path[0])
	switch {
	case len(names) == 0 || slices.Contains(names, fallback):
		path[1] = fallback
	case len(names) == 1:
		path[1] = names[0]
	default:
		r.problem(Origin{Flag: o.Flag}, path[:1], "there are several ("+strings.Join(names, ", ")+")", "set "+path[len(path)-1]+" in the file, or give all of it by flags")
		return nil, false
	}
	return path, true
}

// names lists the tables of one kind: "upstream".
func (r *reader) names(kind string) []string {
	var names []string
	for _, t := range r.tables {
		if t.path[0] == kind {
			names = append(names, t.path[1])
		}
	}
	slices.Sort(names)
	return names
}

// config returns the defaults with a table for each name that occurs.
func (r *reader) config(sockets []string) *Config {
	cfg := Default()
	identity, trust, upstream, listener, route := *cfg.Identity["default"], *cfg.Trust["default"], *cfg.Upstream["default"], *cfg.Listener[defaultListener], cfg.Route[0]
	cfg.Identity, cfg.Trust, cfg.Upstream = map[string]*Identity{}, map[string]*Trust{}, map[string]*Upstream{}
	cfg.Listener = map[string]*Listener{}
	for _, name := range r.names("identity") {
		cfg.Identity[name] = clone(identity)
	}
	for _, name := range r.names("trust") {
		cfg.Trust[name] = clone(trust)
	}
	for _, name := range r.names("upstream") {
		u := clone(upstream)
		u.Retry.On, u.HealthCheck.Expect = slices.Clone(u.Retry.On), slices.Clone(u.HealthCheck.Expect)
		cfg.Upstream[name] = u
	}
	for _, name := range r.names("listener") {
		l := clone(listener)
		if name != defaultListener || slices.Contains(sockets, name) {
			l.Address = nil // only one can have the default, and only where it is ours to bind
		}
		l.AllowedHosts = slices.Clone(l.AllowedHosts)
		cfg.Listener[name] = l
	}
	passed := slices.Contains(sockets, defaultListener)
	if cfg.Listener[defaultListener] == nil && (passed || len(cfg.Listener) == 0) {
		if passed {
			listener.Address = nil
		}
		cfg.Listener[defaultListener] = clone(listener)
	}
	cfg.Route = slices.Repeat([]Route{route}, r.routes)
	for i := range cfg.Route {
		if _, opened := r.opened[dotted([]string{"route", strconv.Itoa(i + 1), "rate_limit"})]; opened {
			cfg.Route[i].RateLimit = &RateLimit{Key: RateKeyAll}
		}
	}
	for _, p := range r.order {
		if len(p.path) > 3 && p.path[0] == "route" && p.path[2] == "rate_limit" {
			n, _ := strconv.Atoi(p.path[1]) // ours: counted by reader
			cfg.Route[n-1].RateLimit = &RateLimit{Key: RateKeyAll}
		}
	}
	cfg.origins = make(map[string]Origin, len(r.settings))
	for _, p := range r.settings {
		cfg.origins[plain(p.path)] = p.at
	}
	return cfg
}

func clone[T any](v T) *T { return &v }

// Origin tells where the value of a dotted key comes from: "limits.max_connections",
// "upstream.default.url", "route[1].upstream". Routes count from 1, and names are
// not quoted.
func (c *Config) Origin(key string) Origin { return c.origins[key] }
