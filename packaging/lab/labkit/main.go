// Command labkit is what the systemd tests need inside their guest: a throwaway
// CA, an upstream that demands a client certificate and says which one it saw,
// and callers that count every request that did not get its answer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: labkit ca DIR
       labkit identity DIR OUT
       labkit upstream [--listen ADDRESS] DIR
       labkit load [--url URL] [--workers N] [--keep-alive] [--every DURATION] [--timeout DURATION] [--for DURATION]
       labkit hold [--url URL]
       labkit page FILE [SECTION]

ca        makes DIR/ca.crt and DIR/ca.key, and DIR/server.crt and .key for localhost
          and the names in the documents
identity  makes a client certificate OUT.crt and OUT.key and prints its serial
upstream  serves TLS, accepts clients of that CA only, answers with the serial it saw;
          ?wait=DURATION delays the answer
load      sends requests until it is told to end by SIGTERM or SIGINT, or --for is over:
          a new connection for each, or POSTs on one that is kept; prints what came of
          them as JSON and exits with 1 if one failed
hold      keeps one connection and sends a POST for each line of its input; says
          "answered" when it was, "last answer" when the server will close, and
          "hung up" when it did
page      prints the sections of a document that have commands, or one section's as a script
`

var errUsage = errors.New("a command line that makes no sense")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, errUsage) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "labkit:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet("labkit "+args[0], flag.ContinueOnError)
	switch args[0] {
	case "ca", "identity", "upstream":
		listen := flags.String("listen", "127.0.0.1:8443", "where the upstream listens")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		switch {
		case args[0] == "ca" && flags.NArg() == 1:
			return makeCA(flags.Arg(0))
		case args[0] == "identity" && flags.NArg() == 2:
			serial, err := makeIdentity(flags.Arg(0), flags.Arg(1))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, serial)
			return err
		case args[0] == "upstream" && flags.NArg() == 1:
			return serveUpstream(ctx, *listen, flags.Arg(0), out)
		}
	case "page":
		if len(args) == 2 || len(args) == 3 {
			return printPage(out, args[1], strings.Join(args[2:], ""))
		}
	case "load":
		l := load{out: out}
		flags.StringVar(&l.url, "url", "http://127.0.0.1:8080/", "what to ask for")
		flags.IntVar(&l.workers, "workers", 8, "how many ask at the same time")
		flags.BoolVar(&l.keepAlive, "keep-alive", false, "POST on kept connections instead of GET on new ones")
		flags.DurationVar(&l.every, "every", 20*time.Millisecond, "each worker's pace")
		flags.DurationVar(&l.timeout, "timeout", 30*time.Second, "how long an answer may take")
		length := flags.Duration("for", 10*time.Minute, "how long to go on at most")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			ctx, cancel := context.WithTimeout(ctx, *length)
			defer cancel()
			return l.run(ctx)
		}
	case "hold":
		where := flags.String("url", "http://127.0.0.1:8080/", "what to ask for")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			return hold(*where, os.Stdin, out)
		}
	}
	return errUsage
}
