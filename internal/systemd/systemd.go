// Package systemd speaks with the service manager that started this process:
// what it handed over, and what it is told about our life.
//
// Everything here does nothing, and says so, when no service manager is
// listening; a program on a terminal needs no second path.
package systemd

import (
	"fmt"
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
