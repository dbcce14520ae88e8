package config

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const withBackups = `[identity.default]
certificate = "client.crt"
key = "client.key"
[trust.default]
ca = "ca.crt"
[upstream.default]
urls = ["https://A.example.net:8443", "https://b.example.net"]
backup_urls = ["https://[2001:db8::1]:8443"]
bind = "::ffff:10.0.0.5"
proxy = "http://proxy.corp:3128"
[upstream.default.weights]
"https://a.example.net:8443/" = 3
"https://[2001:db8::1]:8443" = 7
`

func TestEndpointsHaveWeightsAndBackups(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": withBackups})
	u := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).Upstream["default"]
	var got []Endpoint
	for _, e := range u.Endpoints() {
		e.URL = nil
		got = append(got, e)
	}
	want := []Endpoint{
		{Address: "a.example.net:8443", ServerName: "a.example.net", Host: "a.example.net:8443", Weight: 3},
		{Address: "b.example.net:443", ServerName: "b.example.net", Host: "b.example.net", Weight: 1},
		{Address: "[2001:db8::1]:8443", ServerName: "2001:db8::1", Host: "[2001:db8::1]:8443", Weight: 7, Backup: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Endpoints() = %+v\nwant %+v", got, want)
	}
	if got, want := u.Target(), "https://a.example.net:8443,https://b.example.net,backup:https://[2001:db8::1]:8443"; got != want {
		t.Errorf("Target() = %s, want %s", got, want)
	}
	if got := strings.Join(u.ServerNames(), " "); got != "a.example.net b.example.net 2001:db8::1" || u.ServerName != "" {
		t.Errorf("ServerNames() = %s, ServerName = %q", got, u.ServerName)
	}
	if u.Bind != "10.0.0.5" {
		t.Errorf("bind = %q, want 10.0.0.5", u.Bind)
	}
}

func TestABackupOfOneURLHasANameOfItsOwn(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest + "backup_urls = [\"https://b.example.net\"]\n"})
	u := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).Upstream["default"]
	if list := u.Endpoints(); len(list) != 2 || u.ServerName != "" || list[1].ServerName != "b.example.net" || list[0].ServerName == list[1].ServerName {
		t.Errorf("Endpoints() = %+v, ServerName = %q", list, u.ServerName)
	}
}

func TestShownWeightsLoadAgain(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": withBackups})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	var b, again bytes.Buffer
	if err := cfg.WriteTOML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[upstream.default.weights]\n\"https://[2001:db8::1]:8443\" = 7\n", "backup_urls = [\"https://[2001:db8::1]:8443\"]\n", "bind = \"10.0.0.5\"\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("WriteTOML wrote\n%s\nwithout %s", &b, want)
		}
	}
	dir = folderWith(t, map[string]string{"config.toml": b.String()})
	if err := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}).WriteTOML(&again); err != nil {
		t.Fatal(err)
	}
	if got := again.String(); len(got) != b.Len() {
		t.Errorf("loaded again, it is\n%s\nand was\n%s", got, &b)
	}
	b.Reset()
	if err := cfg.WriteJSON(&b); err != nil || !strings.Contains(b.String(), `"https://a.example.net:8443/": 3`) {
		t.Errorf("WriteJSON wrote %s, %v", &b, err)
	}
}

func TestAURLByFlagReplacesBackupsAndWeights(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": withBackups})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{Overrides: []Override{{"--url", "upstream.*.url", []string{"https://other.example.net"}}}})
	if u := cfg.Upstream["default"]; u.Target() != "https://other.example.net" || len(u.Weights)+len(u.BackupURLs) > 0 {
		t.Errorf("Target() = %s, weights %v, backups %v", u.Target(), u.Weights, u.BackupURLs)
	}
}

// Names of files may have any byte; on a terminal and in one line of a log they do no harm.
func TestNamesOfFilesAreEscaped(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest, "conf.d/10\n\x1b[2J\x9b.toml": "[log]\nlevl = 1\nlevel = \"debug\"\n"})
	cfg, problems := Read(filepath.Join(dir, "config.toml"), Options{})
	if len(problems) != 1 || !strings.Contains(problems.Error(), `conf.d/10\n\x1b[2J\x9b.toml:2:1: log.levl: unknown key`) {
		t.Errorf("problems = %q, want the name with its bytes escaped", problems.Error())
	}
	var shown bytes.Buffer
	if err := cfg.WriteText(&shown); err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(shown.Bytes(), "\x1b") || bytes.IndexByte(shown.Bytes(), 0x9b) >= 0 || !strings.Contains(shown.String(), `10\n\x1b[2J`) {
		t.Errorf("shown = %q, want the name with its bytes escaped", shown.String())
	}
}

// Beyond a bound, flaws are not told one by one, and nothing is concluded from what was not read.
func TestReadingEndsAfterManyFlaws(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": strings.Repeat("[limits\n", 2*maxFlaws) + smallest})
	_, problems := Read(filepath.Join(dir, "config.toml"), Options{})
	if len(problems) != maxFlaws {
		t.Errorf("%d problems, want %d; the last is %v", len(problems), maxFlaws, problems[len(problems)-1])
	}
}
