package upstream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMatchKnowsTheWaysToSayAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string]string{"a.test": "10.0.0.1 2001:db8::1", "b.test": "10.0.0.1"}}
		u := offline(t, Options{Servers: []Server{{Address: "a.test:8443"}, {Address: "b.test:443"}, {Address: "10.0.0.9:443"}}, DNS: z})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go u.Run(ctx, nil)
		<-u.resolver.First()
		synctest.Wait()
		const a4, a6, b, nine = "a.test@10.0.0.1:8443", "a.test@[2001:db8::1]:8443", "b.test@10.0.0.1:443", "10.0.0.9:443"
		for text, want := range map[string][]string{
			a4:                           {a4},
			"A.test@10.0.0.1:8443":       {a4},
			"10.0.0.1:8443":              {a4},
			"10.0.0.1":                   {a4, b},
			"2001:db8::1":                {a6},
			"[2001:db8::1]":              {a6},
			"[2001:db8::1]:8443":         {a6},
			"a.test":                     {a4, a6},
			"a.test.":                    {a4, a6},
			"a.test:8443":                {a4, a6},
			"https://a.test:8443/":       {a4, a6},
			"https://b.test":             {b},
			"https://10.0.0.9":           {nine},
			"https://[2001:db8::1]:8443": {a6},
			"a.test:443":                 nil,
			"https://a.test":             nil,
			"test":                       nil,
			"443":                        nil,
			"":                           nil,
		} {
			got := u.Match(text)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("Match(%q) = %q, want %q", text, got, want)
			}
		}

		// One that has left can be resumed, for it may come back.
		u.Drain(a6)
		z.set("a.test", "10.0.0.1")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := u.Match("2001:db8::1"); !slices.Equal(got, []string{a6}) || u.Len() != 3 {
			t.Errorf("Match() of one that left and is drained = %q with %d endpoints, want it", got, u.Len())
		}
		if !u.Resume(time.Now(), a6) || len(u.Match("2001:db8::1")) != 0 {
			t.Error("it is still known when it was resumed")
		}
	})
}

func TestMatchBehindAProxyIsTheNameWithItsPort(t *testing.T) {
	u := offline(t, Options{Proxy: proxyAt(t, "http://127.0.0.1:1", ""), Servers: []Server{{Address: "a.test:443"}}})
	for _, text := range []string{"a.test:443", "a.test", "https://a.test"} {
		if got := u.Match(text); !slices.Equal(got, []string{"a.test:443"}) {
			t.Errorf("Match(%q) = %q", text, got)
		}
	}
}

func TestEndpointsTellBackupsAndChecks(t *testing.T) {
	f := newFleet(t, 2, nil, func(_ *fleet, o *Options) {
		o.Servers[0].Backup = true
		o.Pool.MaxActive = 1
		o.Check = Check{Path: "/status/503", Interval: time.Hour, Timeout: patience, Expect: []int{200}, UnhealthyAfter: 1, HealthyAfter: 1}
	})
	if list := f.all.Endpoints(); list[0].Check != nil || list[0].Backup || !list[1].Backup || list[1].Address != f.servers[0].Addr() {
		t.Errorf("before a check, the endpoints are %+v", list)
	}
	f.run(t)
	f.event(t, EndpointUnhealthy)
	f.event(t, EndpointUnhealthy)
	for _, e := range f.all.Endpoints() {
		if e.Check == nil || e.Check.Err == nil || !strings.Contains(e.Check.Err.Error(), "status 503") || e.State != "unhealthy" || e.Refused != 0 {
			t.Errorf("after a check that failed, %s is %+v, %+v", e.Address, e, e.Check)
		}
		if e.Check != nil && errors.Is(e.Check.Err, context.Canceled) {
			t.Error("the end of the test counted as a check")
		}
	}
}
