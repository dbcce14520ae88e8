package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// tree makes dir/sub/file with the given modes, whatever the umask.
func tree(t *testing.T, dirMode, subMode, fileMode os.FileMode) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	sub := filepath.Join(dir, "sub")
	file := filepath.Join(sub, "file")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: dirMode, sub: subMode, file: fileMode} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestCheckFiles(t *testing.T) {
	for _, tc := range []struct {
		name           string
		dir, sub, file os.FileMode
		want           string // "": nothing
	}{
		{"all ours", 0o755, 0o755, 0o644, ""},
		{"private", 0o700, 0o700, 0o400, ""},
		{"file writable by everybody", 0o755, 0o755, 0o666, "sub/file: everybody on this host may write to this file (mode 0666)"},
		{"folder writable by everybody", 0o755, 0o777, 0o644, "dir/sub: everybody on this host may write to this folder (mode 0777)"},
		{"folder above writable by everybody", 0o777, 0o755, 0o644, "dir: everybody on this host may write"},
		{"sticky folder", 0o777 | os.ModeSticky, 0o755, 0o644, ""},
		{"directly in a sticky folder", 0o755, 0o777 | os.ModeSticky, 0o644, ""},
		{"writable file in a sticky folder", 0o755, 0o777 | os.ModeSticky, 0o666, "sub/file: everybody"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := tree(t, tc.dir, tc.sub, tc.file)
			got := errors.Join(CheckFiles(file)...)
			switch {
			case tc.want == "" && got != nil:
				t.Errorf("CheckFiles: %v, want nothing", got)
			case tc.want != "" && (got == nil || !strings.Contains(got.Error(), tc.want)):
				t.Errorf("CheckFiles: %v, want %q", got, tc.want)
			}
		})
	}
}

func TestCheckFilesRefusesAGroupThatMayWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file to a group")
	}
	const group = 12345 // nobody's own
	file := tree(t, 0o755, 0o755, 0o664)
	if err := os.Chown(file, 0, group); err != nil {
		t.Fatal(err)
	}
	if got := errors.Join(CheckFiles(file)...); got == nil || !strings.Contains(got.Error(), "group 12345 may write to this file") {
		t.Errorf("CheckFiles: %v, want a complaint about the group", got)
	}
}

func TestCheckFilesRefusesAStrangersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	const stranger = 12345
	t.Run("file", func(t *testing.T) {
		file := tree(t, 0o755, 0o755, 0o644)
		if err := os.Chown(file, stranger, 0); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(CheckFiles(file)...); got == nil || !strings.Contains(got.Error(), "belongs to user 12345") {
			t.Errorf("CheckFiles: %v, want a complaint about the owner", got)
		}
	})
	t.Run("link in a sticky folder", func(t *testing.T) {
		file := tree(t, 0o755, 0o777|os.ModeSticky, 0o644)
		link := filepath.Join(filepath.Dir(file), "link")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(CheckFiles(link)...); got != nil {
			t.Errorf("a link of ours: %v", got)
		}
		if err := os.Lchown(link, stranger, 0); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(CheckFiles(link)...); got == nil || !strings.Contains(got.Error(), "link: belongs to user 12345") {
			t.Errorf("a stranger's link: %v, want a complaint about its owner", got)
		}
	})
}

func TestCheckFilesFollowsLinks(t *testing.T) {
	bad := tree(t, 0o755, 0o777, 0o644)
	good := t.TempDir()
	for name, target := range map[string]string{"to-file": bad, "to-folder": filepath.Dir(bad)} {
		if err := os.Symlink(target, filepath.Join(good, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(good)
	for _, path := range []string{"to-file", good + "/to-file", "./to-folder/file", "to-folder/../sub/file"} {
		if got := errors.Join(CheckFiles(path)...); got == nil || !strings.Contains(got.Error(), "dir/sub: everybody") {
			t.Errorf("CheckFiles(%s): %v, want a complaint about the folder behind the link", path, got)
		}
	}
	loop := filepath.Join(good, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if got := errors.Join(CheckFiles(loop)...); got == nil || !strings.Contains(got.Error(), "too many symbolic links") {
		t.Errorf("CheckFiles of a loop: %v", got)
	}
}

func TestCheckFilesReportsAFolderOnce(t *testing.T) {
	file := tree(t, 0o755, 0o777, 0o644)
	second := filepath.Join(filepath.Dir(file), "second")
	if err := os.WriteFile(second, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := CheckFiles(file, second); len(got) != 1 {
		t.Errorf("CheckFiles: %d problems, want 1: %v", len(got), got)
	}
}

func TestCheckKeysRefusesWhatEverybodyMayRead(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o440: true, 0o644: false, 0o604: false} {
		got := errors.Join(CheckKeys(tree(t, 0o755, 0o755, mode))...)
		if (got == nil) != ok {
			t.Errorf("CheckKeys of mode %04o: %v", mode, got)
		}
		if got != nil && !strings.Contains(got.Error(), "chmod o-rwx") {
			t.Errorf("no fix in %v", got)
		}
	}
}

func TestLoadRefusesLooseModes(t *testing.T) {
	issued := issue(t, authority(t), demo.Request{})
	dir := t.TempDir()
	cert, key := must2(issued.Write(dir, "c"))(t)
	for _, tc := range []struct {
		name string
		path string
		mode os.FileMode
		want string
	}{
		{"key readable by everybody", key, 0o644, "may read the private key"},
		{"key writable by everybody", key, 0o602, "may write to this file"},
		{"certificate writable by everybody", cert, 0o646, "may write to this file"},
		{"folder writable by everybody", dir, 0o777, "may write to this folder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var st syscall.Stat_t
			if err := syscall.Stat(tc.path, &st); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(tc.path, tc.mode); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(tc.path, os.FileMode(st.Mode).Perm())
			if _, err := Load(Source{Name: "x", Certificate: cert, Key: key}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load: %v, want %q", err, tc.want)
			}
		})
	}
	both := write(t, "both.pem", 0o644, issued.ChainPEM(), keyPEM(t, issued))
	if _, err := Load(Source{Name: "x", Certificate: both, Key: key}); err == nil || !strings.Contains(err.Error(), "both.pem: everybody on this host may read the private key") {
		t.Errorf("a certificate's file that holds a key: %v", err)
	}
}
