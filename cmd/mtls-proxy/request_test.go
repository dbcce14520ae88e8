package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// ask is one request as a script writes it.
type ask struct {
	method, url, body string
	fields            []string
	user              string
	unix              string
	status            string // what it must be, "" for any
}

func parseAsk(args []string) (ask, error) {
	a := ask{method: "GET"}
	for len(args) > 1 {
		switch args[0] {
		case "-X":
			a.method = args[1]
		case "-H":
			a.fields = append(a.fields, args[1])
		case "-d":
			a.body = args[1]
		case "-u":
			a.user = args[1]
		case "-unix":
			a.unix = args[1]
		case "-status":
			a.status = args[1]
		default:
			return a, fmt.Errorf("unknown option %q", args[0])
		}
		args = args[2:]
	}
	if len(args) != 1 {
		return a, fmt.Errorf("want one URL")
	}
	a.url = args[0]
	return a, nil
}

// send makes the request on a connection of its own and returns the answer as
// text: status line, fields in order, body.
func (a ask) send(ctx context.Context) (answer string, err error) {
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer tr.CloseIdleConnections()
	if a.unix != "" {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", a.unix)
		}
	}
	req, err := http.NewRequestWithContext(ctx, a.method, a.url, strings.NewReader(a.body))
	if err != nil {
		return "", err
	}
	for _, field := range a.fields {
		name, value, _ := strings.Cut(field, ":")
		if value = strings.TrimSpace(value); strings.EqualFold(name, "Host") {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	if user, password, ok := strings.Cut(a.user, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("read body: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", res.Proto, res.Status)
	var names []string
	for name := range res.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range res.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", body)
	if a.status != "" && !strings.HasPrefix(res.Status, a.status) {
		return "", fmt.Errorf("%s %s: got %s, want %s\n%s", a.method, a.url, res.Status, a.status, body)
	}
	return b.String(), nil
}

func cmdRequest(ts *testscript.TestScript, neg bool, args []string) {
	a, err := parseAsk(args)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := a.send(ctx)
	if neg {
		if err == nil {
			ts.Fatalf("answered although it should not be:\n%s", answer)
		}
		fmt.Fprintln(ts.Stdout(), err)
		return
	}
	ts.Check(err)
	io.WriteString(ts.Stdout(), answer)
}

// cmdBackground makes the request while the script goes on.
func cmdBackground(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "background", args, 2)
	a, err := parseAsk(args[1:])
	ts.Check(err)
	file := ts.MkAbs(args[0] + ".answer")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer, err := a.send(ctx)
		if err != nil {
			answer = fmt.Sprintf("error: %v\n", err)
		}
		// In one step, so that who waits for it never reads half of it.
		os.WriteFile(file+".part", []byte(answer), 0o600)
		os.Rename(file+".part", file)
	}()
	ts.Defer(func() {
		cancel()
		<-done
	})
}

// cmdUntil repeats a request until it is answered with the wanted status, for
// what takes its time: a port that is to be closed, a service that comes up.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	a, err := parseAsk(args)
	ts.Check(err)
	var answer string
	if !eventually(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		answer, err = a.send(ctx)
		return (err == nil) != neg
	}) {
		ts.Fatalf("%s: %v\n%s", a.url, err, answer)
	}
	io.WriteString(ts.Stdout(), answer)
}
