// Package resolve finds out who answers for the names of an upstream, and keeps asking.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DNS looks names up. *net.Resolver does.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Options say what a Resolver looks up. One of Hosts and SRV is required.
type Options struct {
	Hosts []string // host:port each; the host may be an IP address, which is not looked up
	SRV   string   // the whole name of the records, as in _ledger._tcp.example.net

	DNS     DNS           // nil: the system's
	Network string        // "ip", "ip4" or "ip6": only addresses of that family are in the answer; "": "ip"
	Period  time.Duration // from one round of lookups to the next, give or take a tenth; 0: 30 s
	Timeout time.Duration // of one lookup; 0: 11 s, in which a second name server is asked as well where resolv.conf sets no shorter timeout

	// Answered is told of each Answer, in order, by Run, which waits for it. nil: nobody is told.
	Answered func(Answer)
}

// Address is one that answers.
type Address struct {
	netip.AddrPort
	Host     string // it was found under, without a dot at the end; for an IP address, that
	Priority int    // of SRV, lower is better
	Weight   int    // of SRV, or 1 for each of Hosts, in parts of WeightUnit; the addresses of a host share its weight
}

// WeightUnit is the Weight of the only address of a host that has a weight of 1. It can be shared by up to ten without
// a rest.
const WeightUnit = 2520

// Answer is what a round of lookups came to. It does not change.
type Answer struct {
	// Addresses are by priority; the families of a host alternate, beginning with that of its first address. For what
	// could not be looked up, they are those of the last good answer.
	Addresses []Address
	Changed   bool // Addresses differ from those of the Answer before, or it is the first
	At        time.Time
	Err       error // what could not be looked up; nil when all could
	Failures  int   // rounds in a row with an Err
}

// Between rounds there is at least minPause, even where connections fail. While lookups fail it is shorter, and grows from
// minFailedPause to minPause with the time that they have failed for. The pause without anything that asks for a round is
// minPause after the first failure, then doubled each time, up to the period.
const (
	minPause         = time.Second
	minFailedPause   = 250 * time.Millisecond
	failedPauseShare = 100 // of the time since the first failure
)

// askAgain is how long a lookup may be without an answer before another is made beside it, and how long that one lasts.
const askAgain = time.Second

// atOnce is how many hosts are looked up at the same time.
const atOnce = 8

// Resolver knows the addresses of one upstream. Run looks them up; the other methods may be called by anyone, at any
// time, and do not wait.
type Resolver struct {
	o      Options
	static []host // of Options.Hosts
	fixed  bool   // nothing is to be looked up

	current atomic.Pointer[Answer]
	first   chan struct{} // closed after the first round
	ask     chan struct{} // holds one when somebody wants a round soon

	// What follows belongs to Run.
	known   map[string][]netip.Addr // the last good answer for each host in use
	srv     []host                  // the last good answer for SRV
	failing time.Time               // when the first of the last rounds in a row failed; zero: the last one did not
}

// host is a name or IP address that is part of the answer.
type host struct {
	name             string // as it is looked up
	port             uint16
	literal          netip.Addr // valid when there is nothing to look up
	priority, weight int
}

// New returns a Resolver. If all hosts are IP addresses, it has its answer already.
func New(o Options) (*Resolver, error) {
	if (len(o.Hosts) == 0) == (o.SRV == "") {
		return nil, errors.New("resolve: either hosts or the name of SRV records are needed")
	}
	if o.DNS == nil {
		o.DNS = system{}
	}
	if o.Network == "" {
		o.Network = "ip"
	}
	if o.Period <= 0 {
		o.Period = 30 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 11 * time.Second
	}
	r := &Resolver{o: o, fixed: o.SRV == "", first: make(chan struct{}), ask: make(chan struct{}, 1)}
	for _, hostport := range o.Hosts {
		h, err := parseHost(hostport)
		if err != nil {
			return nil, err
		}
		r.static = append(r.static, h)
		r.fixed = r.fixed && h.literal.IsValid()
	}
	// Whoever listens to Answered only hears of the hosts that are IP addresses with the first round.
	r.current.Store(&Answer{Addresses: r.addresses(r.static), Changed: true, At: time.Now()})
	if r.fixed {
		close(r.first)
	}
	return r, nil
}

func parseHost(hostport string) (host, error) {
	name, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return host{}, fmt.Errorf("resolve: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return host{}, fmt.Errorf("resolve: %q has no port between 1 and 65535", hostport)
	}
	if name == "" {
		return host{}, fmt.Errorf("resolve: %q has no host", hostport)
	}
	h := host{name: name, port: uint16(n), weight: 1}
	if ip, err := netip.ParseAddr(name); err == nil {
		h.literal = ip.Unmap()
	}
	return h, nil
}

// Current returns the last answer. Before the first round it has only the addresses that need no lookup.
func (r *Resolver) Current() Answer { return *r.current.Load() }

// Addresses returns those of the last answer. Nobody may change them.
func (r *Resolver) Addresses() []Address { return r.current.Load().Addresses }

// First is closed when the first round has ended, for better or worse.
func (r *Resolver) First() <-chan struct{} { return r.first }

// Refresh asks for a round soon: connections fail, and the addresses may be out of date.
func (r *Resolver) Refresh() {
	select {
	case r.ask <- struct{}{}:
	default:
	}
}

// Run looks up until ctx is done, one round at a time; where there is nothing to look up it returns at once. It is called once.
func (r *Resolver) Run(ctx context.Context) {
	if r.fixed {
		if r.o.Answered != nil {
			r.o.Answered(r.Current())
		}
		return
	}
	for first := true; ; first = false {
		a := r.round(ctx)
		a.Changed = a.Changed || first
		if ctx.Err() != nil {
			return
		}
		r.current.Store(&a)
		if r.o.Answered != nil {
			r.o.Answered(a)
		}
		if first {
			close(r.first)
		}
		switch {
		case a.Failures == 0:
			r.failing = time.Time{}
		case r.failing.IsZero():
			r.failing = a.At
		}
		if !r.rest(ctx, a.Failures) {
			return
		}
	}
}

// rest waits for the next round. It returns false when there is to be none.
func (r *Resolver) rest(ctx context.Context, failures int) bool {
	pause, least := r.o.Period, minPause
	if failures > 0 {
		pause = min(pause, minPause<<min(failures-1, 10))
		least = min(minPause, max(minFailedPause, time.Since(r.failing)/failedPauseShare))
	}
	pause += time.Duration((rand.Float64() - 0.5) / 5 * float64(pause))
	timer := time.NewTimer(least)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	timer.Reset(pause - least)
	select {
	case <-timer.C:
	case <-r.ask:
	case <-ctx.Done():
		return false
	}
	return true
}

// round looks everything up once.
func (r *Resolver) round(ctx context.Context) Answer {
	before := r.current.Load()
	hosts, err := r.static, error(nil)
	if r.o.SRV != "" {
		hosts, err = r.lookupSRV(ctx)
	}
	err = errors.Join(err, r.lookupHosts(ctx, hosts))
	a := Answer{Addresses: r.addresses(hosts), At: time.Now(), Err: err}
	a.Changed = !slices.Equal(a.Addresses, before.Addresses)
	if err != nil {
		a.Failures = before.Failures + 1
	}
	return a
}

// lookupSRV returns the hosts that the records name. With an error, they are what can be used in spite of it.
func (r *Resolver) lookupSRV(ctx context.Context) ([]host, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	records, err := persist(ctx, func(ctx context.Context) ([]*net.SRV, error) {
		_, records, err := r.o.DNS.LookupSRV(ctx, "", "", r.o.SRV)
		return records, err
	})
	var hosts []host
	for _, rec := range records {
		if rec.Target == "." || rec.Target == "" || rec.Port == 0 {
			continue // "decidedly not available", says RFC 2782 of the first
		}
		h := host{name: rec.Target, port: rec.Port, priority: int(rec.Priority), weight: int(rec.Weight)}
		if ip, err := netip.ParseAddr(h.shown()); err == nil {
			h.literal = ip.Unmap()
		}
		hosts = append(hosts, h)
	}
	if err == nil && len(hosts) == 0 {
		err = errors.New("the records name no host")
	}
	if err != nil {
		err = fmt.Errorf("look up SRV records of %s: %w", r.o.SRV, err)
	}
	if len(hosts) == 0 {
		return r.srv, err
	}
	// The resolver shuffles records by weight; an order that stays shows when something changes.
	slices.SortFunc(hosts, func(a, b host) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.weight, a.weight),
			strings.Compare(a.name, b.name), cmp.Compare(a.port, b.port))
	})
	r.srv = hosts
	return hosts, err
}

// lookupHosts brings r.known up to date.
func (r *Resolver) lookupHosts(ctx context.Context, hosts []host) error {
	type result struct {
		addrs []netip.Addr
		err   error
	}
	var names []string
	for _, h := range hosts {
		if !h.literal.IsValid() && !slices.Contains(names, h.name) {
			names = append(names, h.name)
		}
	}
	results := make([]result, len(names))
	places := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i, name := range names {
		places <- struct{}{}
		group.Go(func() {
			results[i].addrs, results[i].err = r.lookupHost(ctx, name)
			<-places
		})
	}
	group.Wait()
	known := make(map[string][]netip.Addr, len(names))
	var errs []error
	for i, name := range names {
		last, res := r.known[name], results[i]
		switch {
		case res.err != nil:
			errs = append(errs, fmt.Errorf("look up %s: %w", name, res.err))
			res.addrs = last
		case sameSet(res.addrs, last):
			res.addrs = last // name servers rotate their answers; ours changes when there is something new
		}
		known[name] = res.addrs
	}
	r.known = known
	return errors.Join(errs...)
}

func (r *Resolver) lookupHost(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	found, err := persist(ctx, func(ctx context.Context) ([]netip.Addr, error) {
		return r.o.DNS.LookupNetIP(ctx, r.o.Network, name)
	})
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.IsValid() && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("the name has no address")
	}
	return Interleave(addrs), nil
}

// persist looks something up. While there is no answer, it asks anew, again and again, beside the first question: a name
// server that was away does not know of what it was asked meanwhile. It returns the answer to the first question, or an
// earlier good one.
func persist[T any](ctx context.Context, look func(context.Context) (T, error)) (T, error) {
	type answer struct {
		found T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 1)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	ask := func(ctx context.Context, first bool) {
		a := answer{}
		if a.found, a.err = look(ctx); a.err != nil && !first {
			return
		}
		select {
		case answers <- a:
		default: // there is one already
		}
	}
	group.Go(func() { ask(ctx, true) })
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		select {
		case a := <-answers:
			return a.found, a.err
		case <-again.C:
			group.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, askAgain)
				defer cancel()
				ask(ctx, false)
			})
		}
	}
}

// system is the system's DNS. A net.Resolver gives equal questions that are asked at the same time one answer; here each is
// asked by itself.
type system struct{}

func (system) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return new(net.Resolver).LookupNetIP(ctx, network, host)
}

func (system) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	return new(net.Resolver).LookupSRV(ctx, service, proto, name)
}

func sameSet(a, b []netip.Addr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x) })
}

// addresses makes the answer of what is known of hosts.
func (r *Resolver) addresses(hosts []host) (all []Address) {
	for _, h := range hosts {
		addrs := r.known[h.name]
		if h.literal.IsValid() {
			addrs = []netip.Addr{h.literal}
		}
		addrs = r.fit(addrs)
		for _, a := range addrs {
			weight := h.weight * WeightUnit / len(addrs)
			if h.weight > 0 {
				weight = max(weight, 1)
			}
			all = append(all, Address{netip.AddrPortFrom(a, h.port), h.shown(), h.priority, weight})
		}
	}
	return all
}

// fit returns those of the family that is wanted. Names are asked for nothing else; IP addresses are what they are.
func (r *Resolver) fit(addrs []netip.Addr) []netip.Addr {
	if r.o.Network == "ip" || !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() != (r.o.Network == "ip4") }) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is4() != (r.o.Network == "ip4") })
}

// shown is the name without the dot that makes it absolute.
func (h *host) shown() string { return strings.TrimSuffix(h.name, ".") }

// Interleave orders addresses for attempts one after the other, as happy eyeballs does (RFC 8305, 4): families
// alternate, beginning with that of the first address; within a family, the order stays.
func Interleave(addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	var families [2][]netip.Addr
	for _, a := range addrs {
		i := 0
		if a.Is4() != addrs[0].Is4() {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	all := make([]netip.Addr, 0, len(addrs))
	for i := range addrs {
		for _, f := range families {
			if i < len(f) {
				all = append(all, f[i])
			}
		}
	}
	return all
}
