package systemd

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestWatchdogInterval(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		name, usec, pid string
		want            time.Duration
		bad             bool
	}{
		{name: "for this process", usec: "30000000", pid: self, want: 30 * time.Second},
		{name: "for whoever asks", usec: "1500000", want: 1500 * time.Millisecond},
		{name: "for another process", usec: "30000000", pid: "1"},
		{name: "off"},
		{name: "not a number", usec: "soon", pid: self, bad: true},
		{name: "not positive", usec: "0", pid: self, bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", tt.usec)
			t.Setenv("WATCHDOG_PID", tt.pid)
			got, err := WatchdogInterval()
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("WatchdogInterval() = %v, %v; want %v, error %v", got, err, tt.want, tt.bad)
			}
			if _, there := os.LookupEnv("WATCHDOG_USEC"); there {
				t.Error("WATCHDOG_USEC is still in the environment")
			}
		})
	}
}
