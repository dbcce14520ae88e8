//go:build linux

// Package faults injects faults into upstreams, for real, and counts what callers saw of them, what the upstreams were
// asked, and what a proxy in front of them did not give back.
//
// As a test it is quick and asserts counts. `make bench-faults` runs the same scenarios for longer and writes the tables
// of docs/reliability.md.
package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/mtls-proxy/mtls-proxy/internal/cli"
)

// asProxy in the environment makes this binary the program.
const asProxy = "FAULTS_AS_PROXY"

// TestMain is also the program: a proxy is a process of its own, whose descriptors and goroutines nobody shares.
func TestMain(m *testing.M) {
	if os.Getenv(asProxy) != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // only the process itself knows
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, "", os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	if address := os.Getenv(asListener); address != "" {
		if err := handOver(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o := options{}
	flag.StringVar(&o.table, "table", "", "run each scenario for long enough to give figures, one after another, and write them to this file")
	flag.Parse()
	chosen.Store(&o)
	if o.table == "" {
		_ = flag.Set("test.parallel", "8") // scenarios spend their time waiting
	}
	code := m.Run()
	if o.table != "" {
		if err := os.WriteFile(o.table, []byte(printed.markdown()), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
