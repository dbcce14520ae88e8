package main

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mtls-proxy/mtls-proxy/internal/demo"
)

// upstream is the remote service of one script.
type upstream struct {
	*demo.Upstream
	authority *demo.Authority
	free      chan struct{} // closed when what is held may be answered
	release   func()

	mu   sync.Mutex
	held int
}

// daysOfValidity is beyond the time from which certificates are warned of.
const daysOfValidity = 60

func newUpstream() (*upstream, error) {
	authority, err := demo.NewAuthority(demo.AuthorityOptions{NotAfter: time.Now().AddDate(0, 0, 90)})
	if err != nil {
		return nil, err
	}
	u := &upstream{authority: authority, free: make(chan struct{})}
	u.release = sync.OnceFunc(func() { close(u.free) })
	u.Upstream, err = demo.NewUpstream(demo.UpstreamOptions{Authority: authority, Handler: u})
	return u, err
}

// ServeHTTP tells who asked for what. /hold is answered once the script says so.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" {
		u.mu.Lock()
		u.held++
		u.mu.Unlock()
		select {
		case <-u.free:
		case <-r.Context().Done():
			return
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%s %s\nhost: %s\nserial: %x\nbody: %s\n", r.Method, r.RequestURI, r.Host, r.TLS.PeerCertificates[0].SerialNumber, body)
}

func (u *upstream) close() {
	u.release()
	u.Close()
}

// renew writes a new client certificate to tls/ and tells the script its serial.
func (u *upstream) renew(ts *testscript.TestScript, days int) {
	issued, err := u.authority.Issue(demo.Request{
		CommonName: "billing", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().AddDate(0, 0, days),
	})
	ts.Check(err)
	_, _, err = issued.Write(ts.MkAbs("tls"), "client")
	ts.Check(err)
	ts.Setenv("SERIAL", issued.Serial())
}

func cmdUpstream(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "upstream", args, 0)
	u, err := newUpstream()
	ts.Check(err)
	onStage(ts).up = u
	ts.Check(os.MkdirAll(ts.MkAbs("tls"), 0o755))
	_, err = u.authority.Write(ts.MkAbs("tls"), "ca")
	ts.Check(err)
	u.renew(ts, daysOfValidity)
	ts.Setenv("UPSTREAM", u.URL())

	// And a certificate that has nothing to do with it.
	other, err := u.authority.Client("other")
	ts.Check(err)
	_, _, err = other.Write(ts.MkAbs("tls"), "other")
	ts.Check(err)
}

func theUpstream(ts *testscript.TestScript) *upstream {
	if u := onStage(ts).up; u != nil {
		return u
	}
	ts.Fatalf("there is no upstream yet")
	return nil
}

func cmdRenew(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "renew", args, 0)
	days := daysOfValidity
	if len(args) > 0 {
		var err error
		days, err = strconv.Atoi(args[0])
		ts.Check(err)
	}
	theUpstream(ts).renew(ts, days)
}

// cmdReroot puts a second CA beside the upstream's.
func cmdReroot(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "reroot", args, 0)
	second, err := demo.NewAuthority(demo.AuthorityOptions{Name: "second"})
	ts.Check(err)
	both := append(theUpstream(ts).authority.PEM(), second.PEM()...)
	ts.Check(os.WriteFile(ts.MkAbs("tls/ca.crt"), both, 0o644))
}

func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "held", args, 0)
	u := theUpstream(ts)
	if !eventually(func() bool { u.mu.Lock(); defer u.mu.Unlock(); return u.held > 0 }) {
		ts.Fatalf("the upstream holds no request")
	}
}

func cmdRelease(ts *testscript.TestScript, neg bool, args []string) {
	plain(ts, neg, "release", args, 0)
	theUpstream(ts).release()
}
