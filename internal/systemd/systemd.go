// Package systemd speaks with the service manager that started this process:
// what it handed over, and what it is told about our life.
//
// Everything here does nothing, and says so, when no service manager is
// listening; a program on a terminal needs no second path.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// WatchdogInterval returns how long the service manager waits for a
// Notify.Watchdog before it kills this process, and 0 when it does not wait at
// all. Ping at half of it. The variables are removed from the environment, so
// only the first call learns anything.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return 0, fmt.Errorf("read the watchdog interval of the service manager: %w", err)
	}
	return d, nil
}

// Credential returns the path of a credential that the unit loads with
// LoadCredential= or one of its relatives. It does not open the file.
func Credential(name string) (path string, err error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return "", fmt.Errorf("credential %q: the name is not that of a file in one folder", name)
	case dir == "":
		return "", fmt.Errorf("credential %q: %w", name, ErrNoCredentials)
	}
	return filepath.Join(dir, name), nil
}

// ErrNoCredentials says that the service manager gave this process no
// credentials: it was not started by systemd, its unit loads none, or it is an
// ExecReload= of a version that keeps them from such commands.
var ErrNoCredentials = errors.New("no credentials were passed (CREDENTIALS_DIRECTORY is not set)")
