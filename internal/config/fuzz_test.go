package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// Whatever is in a file, there is either a configuration or a list of problems,
// and each problem has a place inside that file. A configuration can be shown,
// and what is shown loads again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add([]byte(full))
	f.Add([]byte(several))
	if installed, err := os.ReadFile(installedFile); err == nil {
		f.Add(installed)
		f.Add(uncommented(installed))
	}
	cases, err := filepath.Glob("testdata/problems/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range cases {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			f.Add(part.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, problems := parse([]source{{"/etc/mtls-proxy/config.toml", data}}, Options{}, nil, true)
		if len(problems) > 0 {
			for _, p := range problems {
				inside(t, p, data)
			}
			return
		}
		for _, p := range cfg.Warnings {
			if !p.Origin.IsDefault() {
				inside(t, p, data)
			}
		}
		var shown bytes.Buffer
		if err := errors.Join(cfg.WriteText(&shown), cfg.WriteJSON(&shown)); err != nil {
			t.Fatalf("show: %v", err)
		}
		shown.Reset()
		if err := cfg.WriteTOML(&shown); err != nil {
			t.Fatal(err)
		}
		if len(cfg.Admin.Users) > 0 {
			return // without its users an admin surface beyond loopback is refused
		}
		if _, problems := parse([]source{{"/etc/mtls-proxy/config.toml", shown.Bytes()}}, Options{}, nil, true); len(problems) > 0 {
			t.Fatalf("what was shown does not load: %v\n%s", problems, shown.String())
		}
	})
}

// Cut into parts, a file is as consistent as it is as a whole, and the line that is wrong is one of the file's.
func FuzzParts(f *testing.F) {
	for _, seed := range []string{
		smallest, full, several,
		"[upstream.a]\nurl = 1\n[upstream.b]\n[upstream.a]\n",
		"[upstream.a]\n[[route]]\nhost = 1\n[route.request_headers]\n[[route]]\n[route.request_headers]\n[route.request_headers]\n",
		"[upstream.a.pool]\n[upstream.b]\n[upstream.a]\npool.x = 1\n",
		"upstream.a.url = 1\n[upstream.a]\n", "[upstream]\na.url = 1\n[upstream.a]\n", "route = []\n[[route]]\n",
		"[limits]\n[upstream.a]\n[limits]\n", "[[upstream.a]]\n[upstream.b]\n[upstream.a]\n", "[upstream.a]\nx = 2000-13-01\n[log]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, sound := document("config.toml", data)
		if !sound {
			return
		}
		want := whole(data, lineStarts(data)).consistent("config.toml")
		cut := parts(data, doc, 1)
		var got *Problem
		for _, p := range cut {
			if got = p.consistent("config.toml"); got != nil {
				break
			}
		}
		if (got == nil) != (want == nil) {
			t.Fatalf("in parts: %v; as a whole: %v", got, want)
		}
		if got != nil {
			inside(t, *got, data)
		}
	})
}

// inside fails unless p has its place in data; the end is a place too.
func inside(t *testing.T, p Problem, data []byte) {
	t.Helper()
	lines := bytes.Split(data, []byte("\n"))
	at := p.Origin
	if at.File == "" || at.Line < 1 || at.Line > len(lines) || at.Column < 1 || at.Column > len(lines[at.Line-1])+1 {
		t.Fatalf("%v is outside of a file with %d lines: %v", at, len(lines), p)
	}
	if p.Fact == "" {
		t.Fatalf("a problem at %v says nothing", at)
	}
}
