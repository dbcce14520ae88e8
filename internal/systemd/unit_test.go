package systemd

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// answer puts a systemctl into $PATH that prints what it is asked for, by the last unit of its command line.
func answer(t *testing.T, texts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\nfor unit; do :; done\ncat \"" + dir + "/$unit\"\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	for unit, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

const shownService = `ExecStart={ path=/usr/bin/mtls-proxy ; argv[]=/usr/bin/mtls-proxy run --config /srv/proxy.toml ; ignore_errors=no ; pid=0 }
User=mtls-proxy
SupplementaryGroups=ssl-cert billing
ReadWritePaths=-/run/mtls-proxy /srv/sockets/
PrivateTmp=yes
ProtectSystem=strict
Id=mtls-proxy.service
Wants=tmp.mount payments.socket
TriggeredBy=mtls-proxy.socket payments.socket old.socket asleep.socket proxy.path
LoadState=loaded
NeedDaemonReload=yes
`

func TestLookUpReadsTheUnitWithTheSocketsOfItsNextStart(t *testing.T) {
	answer(t, map[string]string{ServiceUnit: shownService, "payments.socket": `Listen=127.0.0.1:8080 (Stream)
Listen=[::1]:8080 (Stream)
FileDescriptorName=http
Id=mtls-proxy.socket
LoadState=loaded
ActiveState=active
NeedDaemonReload=no

Listen=/run/payments.sock (Stream)
Listen=/run/payments.datagrams (Datagram)
FileDescriptorName=payments
Id=payments.socket
LoadState=loaded
ActiveState=failed
NeedDaemonReload=yes

FileDescriptorName=old.socket
Id=old.socket
LoadState=masked
ActiveState=active
NeedDaemonReload=no

Listen=127.0.0.1:1 (Stream)
FileDescriptorName=asleep
Id=asleep.socket
LoadState=loaded
ActiveState=inactive
NeedDaemonReload=no
`})
	want := &Unit{
		Config: "/srv/proxy.toml", User: "mtls-proxy", Groups: []string{"ssl-cert", "billing"},
		ReadOnly: true, Writable: []string{"/run/mtls-proxy", "/srv/sockets"}, PrivateTmp: true,
		Stale: []string{ServiceUnit, "payments.socket"},
		Sockets: []SocketUnit{
			{ID: "mtls-proxy.socket", Name: "http", Addresses: []string{"127.0.0.1:8080", "[::1]:8080"}},
			{ID: "payments.socket", Name: "payments", Addresses: []string{"unix:/run/payments.sock"}},
		},
	}
	if got := LookUp(t.Context()); !reflect.DeepEqual(got, want) {
		t.Errorf("LookUp() = %+v\nwant %+v", got, want)
	}
}

func TestLookUpIsNilWhereThereIsNoUnit(t *testing.T) {
	for name, texts := range map[string]map[string]string{
		"not installed":    {ServiceUnit: "LoadState=not-found\n"},
		"nobody to answer": {},
	} {
		t.Run(name, func(t *testing.T) {
			answer(t, texts)
			if got := LookUp(t.Context()); got != nil {
				t.Errorf("LookUp() = %+v, want nil", got)
			}
		})
	}
	var none *Unit
	if got := none.Passed(); len(got) != 0 {
		t.Errorf("Passed() without a unit = %v, want none", got)
	}
}
