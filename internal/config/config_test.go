package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const smallest = `[identity.default]
certificate = "client.crt"
key = "client.key"
[trust.default]
ca = "ca.crt"
[upstream.default]
url = "https://api.example.net"
`

const hash = "$2y$10$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

// full sets what smallest leaves out, secrets included.
const full = smallest + `verify_peer = "peer_names"
peer_names = ["*.Example.net", "spiffe://example.net/api"]
peer_pins = ["sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
host = "preserve"
via = false
[upstream.default.pool]
max_active = 5
[upstream."bank.example"]
url = "https://[2001:db8::1]:8443/"
server_name = "Bank.Example"
[listener.http]
address = ["127.0.0.1:8080", "unix:/run/mtls-proxy/../mtls-proxy/http.sock"]
unix_mode = "0600"
[listener.inherited]
address = []
[[route]]
host = "API.localhost"
path_prefix = "/bank/v1"
strip_prefix = "/bank"
methods = ["GET", "POST"]
upstream = "bank.example"
max_request_body = "1MB"
[route.request_headers]
set = { Authorization = "Bearer SECRET" }
remove = ["Cookie"]
[route.response_headers.add]
X-Note = 'a "quoted" \ note'
[[route]]
upstream = "default"
rewrite_location = false
[limits]
max_connections = 10_000
queue_timeout = "0s"
[rate_limit]
requests_per_second = 0.5
[security_headers]
frame_options = ""
[admin]
socket = ""
users = { ops = "` + hash + `" }
[log]
path = true
`

// folderWith writes files, by name, into a folder that only we may change.
func folderWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustLoad(t *testing.T, path string, o Options) *Config {
	t.Helper()
	cfg, err := Load(path, o)
	if err != nil {
		t.Fatalf("Load(%q):\n%v", path, err)
	}
	return cfg
}

func TestSmallestFileGetsDefaults(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest})
	got := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})

	want := Default()
	*want.Identity["default"] = Identity{filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")}
	want.Trust["default"].CA = []string{filepath.Join(dir, "ca.crt")}
	want.Upstream["default"].URL = got.Upstream["default"].URL
	want.Upstream["default"].ServerName = "api.example.net"
	want.Route[0].Upstream = "default"
	want.Files, want.origins = got.Files, got.origins
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Load of the smallest file:\n%s\nwant:\n%s", shown(t, got), shown(t, want))
	}
	if url := got.Upstream["default"].URL.String(); url != "https://api.example.net" {
		t.Errorf("url = %s", url)
	}
}

func TestDropInsExtendTheFileInNameOrder(t *testing.T) {
	dir := folderWith(t, map[string]string{
		"config.toml":             "[upstream.default.pool]\nmax_idle = 3\n[[route]]\nhost = \"a.localhost\"\n",
		"conf.d/20-b.toml":        "[[route]]\nhost = \"c.localhost\"\n",
		"conf.d/10-a.toml":        smallest + "[upstream.default.pool]\nmax_active = 4\n[[route]]\nhost = \"b.localhost\"\n",
		"conf.d/notes.txt":        "not [ TOML",
		"conf.d/.hidden.toml":     "not [ TOML",
		"conf.d/x.toml.bak":       "not [ TOML",
		"conf.d/sub/ignored.toml": "not [ TOML",
	})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	if pool := cfg.Upstream["default"].Pool; pool.MaxIdle != 3 || pool.MaxActive != 4 {
		t.Errorf("pool = %+v; want max_idle of the file and max_active of the drop-in", pool)
	}
	var hosts []string
	for _, r := range cfg.Route {
		hosts = append(hosts, r.Host)
	}
	if want := []string{"a.localhost", "b.localhost", "c.localhost"}; !slices.Equal(hosts, want) {
		t.Errorf("routes are for %v, want %v", hosts, want)
	}
	if got, want := cfg.Identity["default"].Key, filepath.Join(dir, "conf.d/client.key"); got != want {
		t.Errorf("key = %s; want %s, relative to the file that names it", got, want)
	}
	if got, want := cfg.Origin("route[2].host").String(), filepath.Join(dir, "conf.d/10-a.toml")+":11:1"; got != want {
		t.Errorf("origin of route[2].host = %s, want %s", got, want)
	}
	if want := 3; len(cfg.Files) != want {
		t.Errorf("read %v, want %d files", cfg.Files, want)
	}
}

func TestFlagsWinOverFiles(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": strings.ReplaceAll(smallest, ".default]", ".ledger]") +
		"identity = \"ledger\"\ntrust = \"ledger\"\n[admin.users]\nops = \"" + hash + "\"\n"})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{Overrides: []Override{
		{"--url", "upstream.*.url", []string{"https://other.example.net"}},
		{"--ca", "trust.*.ca", []string{"/a.crt", "/b.crt"}},
		{"--listen", "listener.*.address", []string{"127.0.0.1:9090"}},
		{"--max-connections", "limits.max_connections", []string{"7"}},
		{"--via", "upstream.*.via", []string{"false"}},
		{"--admin", "admin.address", []string{""}},
	}})
	u := cfg.Upstream["ledger"]
	if u == nil || u.URL.Host != "other.example.net" || u.ServerName != "other.example.net" || u.Via {
		t.Errorf("upstream.ledger = %+v", u)
	}
	if got := cfg.Trust["ledger"].CA; !slices.Equal(got, []string{"/a.crt", "/b.crt"}) {
		t.Errorf("ca = %v", got)
	}
	if got := cfg.Listener["http"].Address; !slices.Equal(got, []string{"127.0.0.1:9090"}) {
		t.Errorf("address = %v", got)
	}
	if cfg.Limits.MaxConnections != 7 || cfg.Admin.Address != "" {
		t.Errorf("max_connections = %d, admin.address = %q", cfg.Limits.MaxConnections, cfg.Admin.Address)
	}
	if got := cfg.Origin("upstream.ledger.url").String(); got != "flag --url" {
		t.Errorf("origin of url = %s", got)
	}
}

func TestFlagsAloneAreEnough(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	cfg := mustLoad(t, "", Options{Overrides: []Override{
		{"--url", "upstream.*.url", []string{"https://api.example.net:8443"}},
		{"--cert", "identity.*.certificate", []string{"c.pem"}},
		{"--key", "identity.*.key", []string{"/k.pem"}},
	}})
	if got, want := *cfg.Identity["default"], (Identity{filepath.Join(dir, "c.pem"), "/k.pem"}); got != want {
		t.Errorf("identity = %+v, want %+v", got, want)
	}
	if tr := cfg.Trust["default"]; tr == nil || !tr.SystemRoots {
		t.Errorf("trust = %+v, want the system roots", tr)
	}
	if u := cfg.Upstream["default"]; u.HostField() != "api.example.net:8443" || u.Address() != "api.example.net:8443" {
		t.Errorf("HostField() = %s, Address() = %s", u.HostField(), u.Address())
	}
}

func TestWithoutFileAndFlagsThereIsNoUpstream(t *testing.T) {
	_, err := Load("", Options{})
	if err == nil || !strings.Contains(err.Error(), "[identity.default]") || !strings.Contains(err.Error(), "[trust.default]") || !strings.Contains(err.Error(), "[upstream.default]") {
		t.Errorf("Load of nothing = %v; want the three tables named", err)
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest, "conf.d/a.toml/x": ""})
	for name, path := range map[string]string{"cannot be read: no such file": "missing.toml", "a.toml: is a folder": "config.toml"} {
		_, err := Load(filepath.Join(dir, path), Options{})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Load(%s) = %v; want %q", path, err, name)
		}
	}
}

func TestCredentialsAreFilesOfTheServiceManager(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": strings.Replace(smallest, `"client.key"`, `"credential:client-key"`, 1)})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{CredentialsDirectory: "/run/credentials/mtls-proxy.service"})
	if got, want := cfg.Identity["default"].Key, "/run/credentials/mtls-proxy.service/client-key"; got != want {
		t.Errorf("key = %s, want %s", got, want)
	}
}

func TestHostField(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": full})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	if got := cfg.Upstream["default"].HostField(); got != "" {
		t.Errorf(`HostField() with host = "preserve" is %q, want ""`, got)
	}
	if got, want := cfg.Upstream["bank.example"].HostField(), "bank.example:8443"; got != want {
		t.Errorf("HostField() = %q, want %q", got, want)
	}
	if got, want := cfg.Upstream["bank.example"].Address(), "[2001:db8::1]:8443"; got != want {
		t.Errorf("Address() = %q, want %q", got, want)
	}
}

func TestWrittenTOMLLoadsAgain(t *testing.T) {
	for name, content := range map[string]string{"smallest": smallest, "full": full, "several": several} {
		t.Run(name, func(t *testing.T) { writtenLoadsAgain(t, content) })
	}
}

func writtenLoadsAgain(t *testing.T, content string) {
	dir := folderWith(t, map[string]string{"config.toml": content})
	first := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	var written bytes.Buffer
	if err := first.WriteTOML(&written); err != nil {
		t.Fatal(err)
	}
	again := folderWith(t, map[string]string{"config.toml": written.String()})
	second := mustLoad(t, filepath.Join(again, "config.toml"), Options{})
	if len(second.Warnings) > len(first.Warnings) {
		t.Errorf("loaded again, it warns of\n%v\nand before of\n%v", Problems(second.Warnings), Problems(first.Warnings))
	}

	// What is secret is not in it.
	if len(second.Admin.Users) != 0 || len(second.Route[0].RequestHeaders.Set) != 0 {
		t.Errorf("secrets came back: %v %v", second.Admin.Users, second.Route[0].RequestHeaders.Set)
	}
	first.Admin.Users, second.Admin.Users = nil, nil
	first.Route[0].RequestHeaders.Set, second.Route[0].RequestHeaders.Set = nil, nil
	if got, want := shown(t, second), shown(t, first); withoutOrigins(got) != withoutOrigins(want) {
		t.Errorf("loaded again:\n%s\nwant:\n%s\nfrom:\n%s", got, want, written.String())
	}
}

func shown(t *testing.T, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// withoutOrigins drops the last column and what aligns the others.
func withoutOrigins(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		words := strings.Fields(line)
		b.WriteString(strings.Join(words[:len(words)-1], " ") + "\n")
	}
	return b.String()
}

func TestShownConfigurationHidesSecrets(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": full})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	for name, write := range map[string]func(*bytes.Buffer) error{
		"text": func(b *bytes.Buffer) error { return cfg.WriteText(b) },
		"TOML": func(b *bytes.Buffer) error { return cfg.WriteTOML(b) },
		"JSON": func(b *bytes.Buffer) error { return cfg.WriteJSON(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := b.String(); strings.Contains(s, "SECRET") || strings.Contains(s, hash) || !strings.Contains(s, hidden) {
			t.Errorf("%s shows a secret, or not that there is one:\n%s", name, s)
		}
	}
}

func TestShownTextHasOrigins(t *testing.T) {
	t.Chdir(folderWith(t, map[string]string{"config.toml": smallest}))
	cfg := mustLoad(t, "config.toml", Options{Overrides: []Override{{"--log-level", "log.level", []string{"debug"}}}})
	got := withoutAlignment(shown(t, cfg))
	for _, want := range []string{
		`upstream.default.url "https://api.example.net" config.toml:7:1`,
		`log.level "debug" flag --log-level`,
		`limits.max_connections 1000 default`,
		`log.path false default`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s in\n%s", want, got)
		}
	}
}

func withoutAlignment(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return b.String()
}

func TestShownJSON(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": full})
	var b bytes.Buffer
	if err := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Config struct {
			Route []struct {
				Host string
			}
			Limits struct {
				MaxConnections int    `json:"max_connections"`
				HeaderTimeout  string `json:"header_timeout"`
			}
		}
		Origin map[string]string
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if c := got.Config; len(c.Route) != 2 || c.Route[0].Host != "api.localhost" || c.Limits.MaxConnections != 10000 || c.Limits.HeaderTimeout != "10s" {
		t.Errorf("JSON has %+v", c)
	}
	if got.Origin["limits.header_timeout"] != "default" {
		t.Errorf("origins are %v", got.Origin)
	}
}

// Every supported key has a field, and every field a key.
func TestSchemaMatchesTheTypes(t *testing.T) {
	var fields []string
	collect(reflect.TypeFor[Config](), "", &fields)
	var keys []string
	for _, s := range schema() {
		if s.later == "" {
			keys = append(keys, s.pattern)
		}
	}
	slices.Sort(fields)
	slices.Sort(keys)
	if !slices.Equal(fields, keys) {
		t.Errorf("the types have\n%s\nthe schema has\n%s", strings.Join(fields, "\n"), strings.Join(keys, "\n"))
	}
}

// collect lists the patterns of all fields with a tag.
func collect(t reflect.Type, prefix string, out *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("toml")
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			collect(f.Type, prefix, out)
		}
		if tag == "" || tag == "-" {
			continue
		}
		at, pattern := f.Type, prefix+tag
		if at.Kind() == reflect.Map {
			at, pattern = at.Elem(), pattern+".*"
		}
		if at.Kind() == reflect.Slice && at.Elem() == reflect.TypeFor[Route]() {
			at, pattern = at.Elem(), pattern+".*"
		}
		if at.Kind() == reflect.Pointer && at != reflect.TypeFor[*url.URL]() {
			at = at.Elem()
		}
		if at.Kind() == reflect.Struct {
			before := len(*out)
			if collect(at, pattern+".", out); len(*out) > before {
				continue
			}
		}
		*out = append(*out, pattern)
	}
}

func TestDurationsAndSizesAreShownAsWritten(t *testing.T) {
	for _, s := range []string{"250ms", "30s", "1m", "1m30s", "1h", "1h0m1s", "36h", "0s"} {
		d, fact, _ := parseDuration(s)
		if fact != "" || d.String() != s {
			t.Errorf("%q is read as %v (%s)", s, d, fact)
		}
	}
	for _, s := range []string{"1B", "64KiB", "10MiB", "3GiB", "2TiB", "0B"} {
		v, fact, _ := parseSize(s)
		if fact != "" || v.String() != s {
			t.Errorf("%q is read as %v (%s)", s, v, fact)
		}
	}
	for s, want := range map[string]int64{"10MB": 10_000_000, "1kB": 1000, "1 KiB": 1024, "2GB": 2_000_000_000, "1TB": 1_000_000_000_000} {
		if v, fact, _ := parseSize(s); fact != "" || v.Bytes != want {
			t.Errorf("%q is read as %d (%s), want %d", s, v.Bytes, fact, want)
		}
	}
	if d := (Duration{90 * time.Minute}).String(); d != "1h30m" {
		t.Errorf("90 minutes are shown as %s", d)
	}
}

func TestWarningsAreNoProblems(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest + "[listener.http]\naddress = \"0.0.0.0:8080\"\n"})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0].Fact, "not loopback") {
		t.Errorf("warnings = %v", cfg.Warnings)
	}
}

func TestTablesStartFromTheDefaultsAndNotFromEachOther(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": full})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	cfg.Listener["http"].AllowedHosts[0] = "changed"
	if got := cfg.Listener["inherited"].AllowedHosts[0]; got != "localhost" {
		t.Errorf("a change to one listener shows in another: %s", got)
	}
	u := cfg.Upstream["bank.example"]
	u.Retry.On[0], u.HealthCheck.Expect[0] = "changed", 0
	if other := cfg.Upstream["default"]; other.Retry.On[0] != RetryConnect || other.HealthCheck.Expect[0] != 200 {
		t.Errorf("a change to one upstream shows in another: %v %v", other.Retry.On, other.HealthCheck.Expect)
	}
	if names := slices.Sorted(maps.Keys(cfg.Upstream)); !slices.Equal(names, []string{"bank.example", "default"}) {
		t.Errorf("upstreams are %v", names)
	}
}

func TestListenersTakeTheirAddressFromPassedSockets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		text    string
		sockets []string
		want    map[string][]string
	}{
		{"no socket", "[listener.payments]\naddress = \"127.0.0.1:8080\"\n", nil, map[string][]string{"payments": {"127.0.0.1:8080"}}},
		{"no table", "", []string{"http"}, map[string][]string{"http": nil}},
		{"another table, on the address that is http's by default", "[listener.payments]\naddress = \"127.0.0.1:8080\"\n", []string{"http"},
			map[string][]string{"payments": {"127.0.0.1:8080"}, "http": nil}},
		{"a table without an address", "[listener.http]\n[listener.payments]\n", []string{"http", "payments"},
			map[string][]string{"http": nil, "payments": nil}},
		{"an address in vain", "[listener.http]\naddress = \"127.0.0.1:9090\"\n", []string{"http"}, map[string][]string{"http": {"127.0.0.1:9090"}}},
		{"a socket that only a table may have", "", []string{"payments"}, map[string][]string{"http": {"127.0.0.1:8080"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folderWith(t, map[string]string{"config.toml": smallest + tt.text})
			got := make(map[string][]string)
			for name, l := range mustLoad(t, filepath.Join(dir, "config.toml"), Options{Sockets: tt.sockets}).Listener {
				got[name] = l.Address
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("listeners %v, want %v", got, tt.want)
			}
		})
	}
}
