// Command mtls-proxy lets programs on this host speak plain HTTP to services
// that demand a client certificate.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/mtls-proxy/mtls-proxy/internal/cli"
)

var version string // set by the linker for releases

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
