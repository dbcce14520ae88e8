package admission

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when a goroutine outlives the tests: each has an owner that waits for it.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := outliving(5 * time.Second); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "%d goroutines outlive the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// outliving returns the stacks of goroutines that are still there after patience.
func outliving(patience time.Duration) (left []string) {
	for limit := time.Now().Add(patience); ; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		left = nil
		for stack := range strings.SplitSeq(string(buf), "\n\n") {
			if !expected(stack) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(limit) {
			return left
		}
	}
}

// expected tells the goroutines of the runtime and of the testing package from ours.
func expected(stack string) bool {
	for _, sign := range []string{"testing.(*M).", "TestMain(", "os/signal.loop", "os/signal.signal_recv", "runtime.ensureSigM", "created by runtime"} {
		if strings.Contains(stack, sign) {
			return true
		}
	}
	return strings.TrimSpace(stack) == ""
}
