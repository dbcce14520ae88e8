package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file in testdata/problems is a configuration with what is said about it.
// A case is added by adding a file and running with -update.
func TestProblems(t *testing.T) {
	cases, err := filepath.Glob("testdata/problems/*.txtar")
	if err != nil || len(cases) < 40 {
		t.Fatalf("found %d cases, %v; want at least 40", len(cases), err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			file, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(unpack(t, archive))
			got := said(Load("config.toml", Options{Overrides: flags(archive)}))
			if strings.Contains(got, "SECRET") {
				t.Errorf("a secret is quoted:\n%s", got)
			}
			if *update {
				setWant(archive, got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := section(archive, "want"); got != want {
				t.Errorf("Load said:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// said is the text of the problems, or of the warnings when there are none.
func said(cfg *Config, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, w := range cfg.Warnings {
		b.WriteString("warning: " + w.String() + "\n")
	}
	return b.String()
}

// unpack writes the TOML files of archive into a folder that only we may change.
func unpack(t *testing.T, archive *txtar.Archive) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range archive.Files {
		if !strings.HasSuffix(f.Name, ".toml") {
			continue
		}
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flags reads the section "flags": a flag, its key and its values on each line.
func flags(archive *txtar.Archive) []Override {
	var list []Override
	for line := range strings.Lines(section(archive, "flags")) {
		words := strings.Fields(line)
		list = append(list, Override{Flag: words[0], Key: words[1], Values: words[2:]})
	}
	return list
}

func section(archive *txtar.Archive, name string) string {
	for _, f := range archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func setWant(archive *txtar.Archive, got string) {
	for i, f := range archive.Files {
		if f.Name == "want" {
			archive.Files[i].Data = []byte(got)
			return
		}
	}
	archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
}
