package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	installedFile = "../../etc/mtls-proxy/config.toml"
	page          = "../../docs/configuration.md"
)

// uncommented puts the settings of the installed file into force: they stand
// directly behind the #, prose has a blank between.
func uncommented(data []byte) []byte {
	return regexp.MustCompile(`(?m)^#([^ \n#])`).ReplaceAll(data, []byte("$1"))
}

func supported() []setting {
	return slices.DeleteFunc(schema(), func(s setting) bool { return s.later != "" })
}

func TestInstalledFileSetsNothing(t *testing.T) {
	data, err := os.ReadFile(installedFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, sound := document("config.toml", data)
	if !sound {
		t.Fatal("not TOML")
	}
	for _, s := range doc {
		if !s.header {
			t.Errorf("%v sets %s", s.at, dotted(s.path))
		}
	}
	dir := folderWith(t, map[string]string{"config.toml": string(data), "conf.d/own.toml": smallest})
	mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
}

func TestInstalledFileHasEveryKeyOnce(t *testing.T) {
	data, err := os.ReadFile(installedFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, sound := document("config.toml", uncommented(data))
	if !sound {
		t.Fatal("not TOML")
	}
	var got, want []string
	var table []string
	for _, s := range doc {
		if s.header {
			table = s.path
			continue
		}
		got = append(got, strings.Join(append(table[:len(table):len(table)], s.path...), "."))
	}
	for _, s := range supported() {
		key := strings.TrimSuffix(s.pattern, ".*") // { } stands for a map
		key = strings.Replace(key, "route.*", "route", 1)
		key = strings.Replace(key, "listener.*", "listener.http", 1)
		want = append(want, strings.ReplaceAll(key, "*", "default"))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the installed file has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestInstalledFileShowsTheDefaults(t *testing.T) {
	data, err := os.ReadFile(installedFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := folderWith(t, map[string]string{"config.toml": string(uncommented(data))})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	defaults := make(map[string]any)
	for _, e := range Default().entries() {
		if !empty(e.val) {
			defaults[plain(e.path)] = simple(e.val)
		}
	}
	for _, e := range cfg.entries() {
		key := plain(e.path)
		if want, has := defaults[key]; has && !reflect.DeepEqual(simple(e.val), want) {
			t.Errorf("%s is %v in the installed file, and %v by default", key, simple(e.val), want)
		}
		delete(defaults, key)
	}
	if len(defaults) > 0 {
		t.Errorf("defaults that are not in the installed file: %v", defaults)
	}
}

// The page has a table row for each key, and the default in it is that of the
// code.
func TestPageHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string) // key to its default
	row := regexp.MustCompile("(?m)^\\| `([a-zA-Z_.]+)` \\|[^|]*\\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(string(data), -1) {
		if _, twice := documented[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		documented[m[1]] = m[2]
	}
	defaults := make(map[string]string)
	for _, e := range Default().entries() {
		if !empty(e.val) {
			defaults[e.leaf.pattern] = "`" + literal(e.val) + "`"
		}
	}
	for _, s := range supported() {
		got, ok := documented[s.shown()]
		if !ok {
			t.Errorf("%s has no row", s.shown())
			continue
		}
		delete(documented, s.shown())
		if want, has := defaults[s.pattern]; has && got != want {
			t.Errorf("%s has the default %s on the page, and %s in the code", s.shown(), got, want)
		} else if !has && strings.HasPrefix(got, "`") && got != "`\"\"`" && got != "`[]`" {
			t.Errorf("%s has the default %s on the page, and none in the code", s.shown(), got)
		}
	}
	for key := range documented {
		t.Errorf("%s has a row and is not a key", key)
	}
}

// The examples of the page, each a fenced block of TOML, load.
func TestPageExamplesLoad(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```toml\n(.*?)^```").FindAllSubmatch(data, -1)
	if len(blocks) < 3 {
		t.Fatalf("found %d examples", len(blocks))
	}
	for _, block := range blocks {
		dir := folderWith(t, map[string]string{"config.toml": string(block[1])})
		if cfg, err := Load(filepath.Join(dir, "config.toml"), Options{CredentialsDirectory: "/run/credentials"}); err != nil {
			t.Errorf("example:\n%s\n%v", bytes.TrimSpace(block[1]), err)
		} else if len(cfg.Warnings) > 0 {
			t.Errorf("example:\n%s\n%v", bytes.TrimSpace(block[1]), cfg.Warnings)
		}
	}
}
