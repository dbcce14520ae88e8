package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesThatOthersMayChangeAreRefused(t *testing.T) {
	const somebody = 54321
	tests := []struct {
		name     string
		change   func(dir string) error
		needRoot bool
		want     string // in the one problem; "" for none
	}{
		{name: "private", change: func(string) error { return nil }},
		{name: "world writable file", change: chmod("config.toml", 0o646), want: "config.toml: everybody may write to it (mode 0646)"},
		{name: "world writable folder", change: chmod(".", 0o757), want: "everybody may write to it (mode 0757)"},
		{name: "sticky folder", change: chmod(".", 0o777|fs.ModeSticky)},
		{name: "world writable drop-in", change: chmod("conf.d/a.toml", 0o666), want: "conf.d/a.toml: everybody may write to it"},
		{name: "sticky folder of drop-ins", change: chmod("conf.d", 0o777|fs.ModeSticky), want: "conf.d: everybody may write to it"},
		{name: "group writable", needRoot: true, change: func(dir string) error {
			return first(os.Chown(filepath.Join(dir, "config.toml"), 0, somebody), os.Chmod(filepath.Join(dir, "config.toml"), 0o660))
		}, want: "config.toml: the group 54321 may write to it (mode 0660)"},
		{name: "group readable", needRoot: true, change: func(dir string) error {
			return first(os.Chown(filepath.Join(dir, "config.toml"), 0, somebody), os.Chmod(filepath.Join(dir, "config.toml"), 0o640))
		}},
		{name: "of somebody else", needRoot: true, change: func(dir string) error {
			return os.Chown(filepath.Join(dir, "config.toml"), somebody, 0)
		}, want: "config.toml: belongs to the user 54321, who may change it"},
		{name: "folder of somebody else", needRoot: true, change: func(dir string) error {
			return os.Chown(filepath.Join(dir, "conf.d"), somebody, somebody)
		}, want: "conf.d: belongs to the user 54321"},
		{name: "link of somebody else", needRoot: true, change: func(dir string) error {
			return first(behindLink(dir), os.Lchown(filepath.Join(dir, "config.toml"), somebody, somebody))
		}, want: "config.toml: is a link of the user 54321"},
		{name: "link into an open folder", change: func(dir string) error {
			return first(behindLink(dir), os.Chmod(filepath.Join(dir, "target"), 0o777))
		}, want: "target: everybody may write to it"},
		{name: "link", change: behindLink},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.needRoot && os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			dir := folderWith(t, map[string]string{"config.toml": smallest, "conf.d/a.toml": ""})
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Load(filepath.Join(dir, "config.toml"), Options{})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Load: %v; want no problem", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || len(err.(Problems)) != 1):
				t.Errorf("Load: %v; want one problem: %s", err, tt.want)
			}
		})
	}
}

func chmod(name string, mode fs.FileMode) func(string) error {
	return func(dir string) error { return os.Chmod(filepath.Join(dir, name), mode) }
}

// behindLink puts config.toml into a folder of its own, behind a link.
func behindLink(dir string) error {
	file, target := filepath.Join(dir, "config.toml"), filepath.Join(dir, "target")
	return first(os.Mkdir(target, 0o755), os.Rename(file, filepath.Join(target, "config.toml")), os.Symlink("target/config.toml", file))
}

// first is the first error there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
