package files

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// check reads paths with one Reader and returns what it found.
func check(t *testing.T, paths ...string) (found []error) {
	t.Helper()
	var r Reader
	for _, p := range paths {
		f, err := r.Read(p, 1<<20)
		if err != nil {
			found = append(found, err)
			continue
		}
		for _, p := range f.Problems {
			found = append(found, p)
		}
	}
	return found
}

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

func TestReadSaysWhoMayChangeAFile(t *testing.T) {
	for _, tc := range []struct {
		name           string
		dir, sub, file os.FileMode
		want           string // "": nothing
	}{
		{"all ours", 0o755, 0o755, 0o644, ""},
		{"private", 0o700, 0o700, 0o400, ""},
		{"file writable by everybody", 0o755, 0o755, 0o666, "sub/file: everybody may write to it (mode 0666)"},
		{"folder writable by everybody", 0o755, 0o777, 0o644, "dir/sub: everybody may write to it (mode 0777)"},
		{"folder above writable by everybody", 0o777, 0o755, 0o644, "dir: everybody may write"},
		{"sticky folder", 0o777 | os.ModeSticky, 0o755, 0o644, ""},
		{"directly in a sticky folder", 0o755, 0o777 | os.ModeSticky, 0o644, ""},
		{"writable file in a sticky folder", 0o755, 0o777 | os.ModeSticky, 0o666, "sub/file: everybody"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := tree(t, tc.dir, tc.sub, tc.file)
			got := errors.Join(check(t, file)...)
			switch {
			case tc.want == "" && got != nil:
				t.Errorf("CheckFiles: %v, want nothing", got)
			case tc.want != "" && (got == nil || !strings.Contains(got.Error(), tc.want)):
				t.Errorf("CheckFiles: %v, want %q", got, tc.want)
			}
		})
	}
}

func TestReadFindsAGroupThatMayWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file to a group")
	}
	const group = 12345 // no user has it as its own
	file := tree(t, 0o755, 0o755, 0o664)
	if err := os.Chown(file, 0, group); err != nil {
		t.Fatal(err)
	}
	if got := errors.Join(check(t, file)...); got == nil || !strings.Contains(got.Error(), "group 12345 may write to it") {
		t.Errorf("CheckFiles: %v, want a complaint about the group", got)
	}
}

func TestReadFindsAStrangersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	const stranger = 12345
	t.Run("file", func(t *testing.T) {
		file := tree(t, 0o755, 0o755, 0o644)
		if err := os.Chown(file, stranger, 0); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(check(t, file)...); got == nil || !strings.Contains(got.Error(), "belongs to the user 12345") {
			t.Errorf("CheckFiles: %v, want a complaint about the owner", got)
		}
	})
	t.Run("link in a sticky folder", func(t *testing.T) {
		file := tree(t, 0o755, 0o777|os.ModeSticky, 0o644)
		link := filepath.Join(filepath.Dir(file), "link")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(check(t, link)...); got != nil {
			t.Errorf("a link of ours: %v", got)
		}
		if err := os.Lchown(link, stranger, 0); err != nil {
			t.Fatal(err)
		}
		if got := errors.Join(check(t, link)...); got == nil || !strings.Contains(got.Error(), "link: is a link of the user 12345") {
			t.Errorf("a stranger's link: %v, want a complaint about its owner", got)
		}
	})
}

func TestReadFollowsLinks(t *testing.T) {
	bad := tree(t, 0o755, 0o777, 0o644)
	good := t.TempDir()
	for name, target := range map[string]string{"to-file": bad, "to-folder": filepath.Dir(bad)} {
		if err := os.Symlink(target, filepath.Join(good, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(good)
	for _, path := range []string{"to-file", good + "/to-file", "./to-folder/file", "to-folder/../sub/file"} {
		if got := errors.Join(check(t, path)...); got == nil || !strings.Contains(got.Error(), "dir/sub: everybody") {
			t.Errorf("check(t, %s): %v, want a complaint about the folder behind the link", path, got)
		}
	}
	loop := filepath.Join(good, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if got := errors.Join(check(t, loop)...); got == nil || !strings.Contains(got.Error(), "too many symbolic links") {
		t.Errorf("CheckFiles of a loop: %v", got)
	}
}

func TestReadReportsAFolderOnce(t *testing.T) {
	file := tree(t, 0o755, 0o777, 0o644)
	second := filepath.Join(filepath.Dir(file), "second")
	if err := os.WriteFile(second, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := check(t, file, second); len(got) != 1 {
		t.Errorf("CheckFiles: %d problems, want 1: %v", len(got), got)
	}
}

// Read does not block, whatever lies at the path.
func TestReadWantsARegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo, folder, socket, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "folder"), filepath.Join(dir, "socket"), filepath.Join(dir, "large")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Mkdir(folder, 0o700), os.WriteFile(large, make([]byte, 1<<20+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for path, want := range map[string]string{
		fifo: "is not a regular file", folder: "is a folder", socket: "is not a regular file", "/dev/null": "is not a regular file",
		"/dev/zero": "is not a regular file", large: "is larger than 1 MiB", filepath.Join(dir, "none"): "cannot be read: no such file or directory",
		filepath.Join(large, "x"): "cannot be read: not a directory",
	} {
		if _, err := new(Reader).Read(path, 1<<20); err == nil || err.Error() != path+": "+want {
			t.Errorf("Read(%s) = %v, want %s", path, err, want)
		}
	}
	if _, err := new(Reader).Read(filepath.Join(dir, "none"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

// A file that takes the place of the one that was judged is not read.
func TestWhatWasJudgedIsWhatIsOpened(t *testing.T) {
	file := tree(t, 0o755, 0o755, 0o644)
	w, err := new(Reader).walk(file)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	other := file + ".new"
	if err := errors.Join(os.WriteFile(other, []byte("other"), 0o600), os.Rename(other, file)); err != nil {
		t.Fatal(err)
	}
	if f, err := w.open(unix.O_RDONLY); err == nil || !strings.Contains(err.Error(), "changes while it is read") {
		t.Errorf("open = %v, %v", f, err)
	}
}

// A hint does not tell to change what a link leads to elsewhere.
func TestHintsChangeNothingElsewhere(t *testing.T) {
	bad := tree(t, 0o755, 0o755, 0o666)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(bad, link); err != nil {
		t.Fatal(err)
	}
	if got := errors.Join(check(t, link)...); got == nil || strings.Contains(got.Error(), "chmod") || !strings.Contains(got.Error(), "in the place of the link "+link) {
		t.Errorf("through a link: %v", got)
	}
	if got := errors.Join(check(t, bad)...); got == nil || !strings.Contains(got.Error(), "chmod o-w "+bad) {
		t.Errorf("directly: %v", got)
	}
}

func TestList(t *testing.T) {
	file := tree(t, 0o755, 0o777|os.ModeSticky, 0o644)
	if err := os.Symlink(os.DevNull, file+".off"); err != nil {
		t.Fatal(err)
	}
	names, problems, err := new(Reader).List(filepath.Dir(file))
	if err != nil || !slices.Equal(names, []string{"file", "file.off"}) {
		t.Errorf("List = %q, %v", names, err)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "everybody may write") { // others could add one
		t.Errorf("problems %v", problems)
	}
	if Masked(file) || !Masked(file+".off") {
		t.Error("a link to /dev/null masks, and nothing else")
	}
	if _, _, err := new(Reader).List(file); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("List of a file: %v", err)
	}
	if names, _, err := new(Reader).List("/"); err != nil || len(names) == 0 {
		t.Errorf("List of the root = %q, %v", names, err)
	}
}
