package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPasswordsAreReadLikeKeys(t *testing.T) {
	tests := []struct {
		name    string
		content string
		mode    fs.FileMode
		change  func(dir string) error
		want    string // the password
		fact    string // in the one problem; "" for none
	}{
		{name: "one line", content: "sesame\n", mode: 0o600, want: "sesame"},
		{name: "without its end", content: "sesame", mode: 0o640, want: "sesame"},
		{name: "as written elsewhere", content: "open sesame \r\n", mode: 0o600, want: "open sesame "},
		{name: "readable for all", content: "SECRET\n", mode: 0o644, fact: "everybody on this host may read the password in DIR/password (mode 0644)\n\thint: chmod o-rwx DIR/password"},
		{name: "writable for all", content: "SECRET\n", mode: 0o602, fact: "DIR/password: everybody may write to it (mode 0602)\n\thint: chmod o-w DIR/password"},
		{name: "empty", content: "\n", mode: 0o600, fact: "DIR/password is empty"},
		{name: "two lines", content: "SECRET\nSECRET\n", mode: 0o600, fact: "DIR/password is more than one line of text"},
		{name: "binary", content: "SECRET\x00", mode: 0o600, fact: "DIR/password is more than one line of text"},
		{name: "too large", content: strings.Repeat("SECRET", 1000), mode: 0o600, fact: "DIR/password is larger than 4 KiB"},
		{name: "missing", mode: 0o600, change: func(dir string) error { return os.Remove(filepath.Join(dir, "password")) }, fact: "DIR/password cannot be read: no such file or directory"},
		{name: "a folder", mode: 0o600, change: func(dir string) error {
			return first(os.Remove(filepath.Join(dir, "password")), os.Mkdir(filepath.Join(dir, "password"), 0o700))
		}, fact: "DIR/password is a folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folderWith(t, map[string]string{"password": tt.content, "config.toml": strings.TrimSuffix(smallest, "\n") + `
proxy = "http://user@proxy.corp:3128"
proxy_password_file = "password"
[rate_limit]
shared = "redis://127.0.0.1"
shared_password_file = "password"
`})
			if err := os.Chmod(filepath.Join(dir, "password"), tt.mode); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				if err := tt.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{}) // opens neither
			check := func(got string, err error, place string) {
				t.Helper()
				if got != tt.want {
					t.Errorf("password = %q, want %q", got, tt.want)
				}
				fact := strings.ReplaceAll(tt.fact, "DIR", dir)
				switch {
				case fact == "" && err != nil:
					t.Errorf("error %v; want none", err)
				case fact != "" && (err == nil || len(err.(Problems)) != 1 || !strings.HasPrefix(err.Error(), filepath.Join(dir, "config.toml")+place+fact)):
					t.Errorf("error %v; want %s%s", err, place, fact)
				case err != nil && strings.Contains(err.Error(), "SECRET"):
					t.Errorf("the password is in the error: %v", err)
				}
			}
			got, err := cfg.ProxyPassword("default")
			check(got, err, ":9:1: upstream.default.proxy_password_file: ")
			got, err = cfg.SharedPassword()
			check(got, err, ":12:1: rate_limit.shared_password_file: ")
		})
	}
}

func TestWithoutAFileThereIsNoPassword(t *testing.T) {
	dir := folderWith(t, map[string]string{"config.toml": smallest})
	cfg := mustLoad(t, filepath.Join(dir, "config.toml"), Options{})
	if got, err := cfg.ProxyPassword("default"); got != "" || err != nil {
		t.Errorf("ProxyPassword = %q, %v", got, err)
	}
	if got, err := cfg.SharedPassword(); got != "" || err != nil {
		t.Errorf("SharedPassword = %q, %v", got, err)
	}
}
