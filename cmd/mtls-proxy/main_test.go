package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run this very binary: under the name mtls-proxy it is the program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mtls-proxy": main,
		"activate":   activate,
	})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		Setup:              setup,
		Condition:          condition,
		Cmds:               commands(),
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// condition knows [journald]: native records of the scripts would end up in
// the journal of this machine.
func condition(name string) (bool, error) {
	switch name {
	case "journald":
		_, err := os.Stat("/run/systemd/journal/socket")
		return err == nil, nil
	case "root":
		return os.Geteuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// activate becomes the program that its arguments name after doing what only
// the process itself can: telling it that the sockets it inherits are its own.
func activate() {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	path := os.Args[1]
	if err := syscall.Exec(path, os.Args[2:], os.Environ()); err != nil {
		panic(err)
	}
}
