package identity

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

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
		{"key writable by everybody", key, 0o602, "may write to it"},
		{"certificate writable by everybody", cert, 0o646, "may write to it"},
		{"folder writable by everybody", dir, 0o777, "may write to it"},
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
