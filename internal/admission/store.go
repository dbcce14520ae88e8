package admission

import (
	"context"
	"crypto/sha1" //nolint:gosec // see scriptHash
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The bucket in the store is the time at which it is full, in µs of the store's
// clock since 2023, and the interval by which that was reckoned, so that it keeps
// its debt in tokens when the rate changes. Of what is wanted it grants as much as
// there is. What is no such bucket is taken for none, and a debt of more than the
// burst, as after the store's clock went back, for the burst; both are written
// over. Nothing else is asked than GET, SET and TIME, in Redis 5 or later.
const script = `
local clock = redis.call('TIME')
local now = (clock[1] - 1700000000) * 1000000 + clock[2]
local interval, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full, write = now, want == 0
local was = redis.pcall('GET', KEYS[1])
if type(was) == 'string' then
  local at, by = string.match(was, '^(%S+) (%S+)$')
  at, by = tonumber(at), tonumber(by)
  if at and by and at > -1e17 and at < 1e17 and by > 0 and by <= 1e15 then
    local owed = math.max(at - now, 0) / by
    if owed > burst then owed, write = burst, true end
    full = now + owed * interval
  else
    write = true
  end
elseif was then
  write = true
end
local room = math.max(math.floor(burst - (full - now) / interval + 0.000001), 0)
local granted = math.min(want, room)
local wait = 0
full = full + granted * interval
if granted < want then wait = math.max(math.ceil(full + interval - now - burst * interval), 1) end
if granted > 0 or write then
  redis.call('SET', KEYS[1], string.format('%.17g %.17g', full, interval), 'PX', math.ceil((full - now) / 1000) + 1)
end
return {granted, wait, math.ceil(full - now)}
`

const (
	openTimeout = 2 * time.Second // for finding the store, which no exchange waits for
	firstPause  = 100 * time.Millisecond
	lastPause   = 10 * time.Second
	mostAsks    = 256 // in a round trip
)

// serve puts the questions to the store until ctx is done. It is the one goroutine of a Shared.
func (s *Shared) serve(ctx context.Context, l *link) {
	defer close(s.done)
	defer l.close()
	batch := make([]*ask, 0, mostAsks)
	var (
		down  bool
		back  time.Time     // when the store was found again
		pause time.Duration // the last one
	)
	for {
		batch = batch[:0]
		if !down {
			select {
			case a := <-s.queue:
				batch = s.more(append(batch, a))
			case <-s.wake:
			case <-ctx.Done():
			}
		}
		answers, err := s.round(ctx, l, batch)
		if err == nil {
			if refused := l.refused; refused != nil {
				s.failed.Add(1)
				s.trouble.Store(&refused)
			}
			for i, a := range batch {
				s.settle(a, answers[i])
			}
			s.away.Store(false)
			if down {
				down, back = false, time.Now()
				s.tell(nil)
			}
			continue
		}
		s.away.Store(true)
		closing := ctx.Err() != nil
		if !closing {
			s.failed.Add(1)
			s.trouble.Store(&err)
		}
		for _, a := range batch {
			s.settle(a, nil)
		}
		if !closing && !down {
			s.tell(err)
		}
		if !down && time.Since(back) > lastPause {
			pause = 0 // it had been well for so long that this is another illness
		}
		down, pause = true, min(max(2*pause, firstPause), lastPause)
		if !s.rest(ctx, pause-rand.N(pause/4)) { // a fleet does not come back in step
			return
		}
	}
}

func (s *Shared) tell(err error) {
	if s.changed != nil {
		s.changed(err)
	}
}

// more adds what else is in the queue, as far as it goes into one round trip.
func (s *Shared) more(batch []*ask) []*ask {
	for len(batch) < mostAsks {
		select {
		case a := <-s.queue:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// rest waits, and answers those who had not noticed that the store is away; false
// when ctx is done.
func (s *Shared) rest(ctx context.Context, pause time.Duration) bool {
	s.next.Store(s.table.now() + int64(pause))
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		select {
		case a := <-s.queue:
			s.settle(a, nil)
		case <-t.C:
			return ctx.Err() == nil
		case <-ctx.Done():
			for _, a := range s.more(nil) {
				s.settle(a, nil)
			}
			return false
		}
	}
}

// round puts the questions of a batch, or looks whether the store is there when
// there are none.
func (s *Shared) round(ctx context.Context, l *link, batch []*ask) ([]*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	questions := make([]question, len(batch))
	for i, a := range batch {
		questions[i] = question{key: a.key, interval: a.budget.interval, burst: a.budget.burst, want: s.wanted(a)}
	}
	s.asked.Add(uint64(len(batch)))
	s.trips.Add(1)
	return l.put(ctx, questions)
}

// question is an ask in the words of the script.
type question struct {
	key         string
	interval    float64
	burst, want int
}

// link is the connection to the store, opened when it is needed. It belongs to one goroutine.
type link struct {
	at      *address
	dial    func(context.Context) (net.Conn, error)
	timeout time.Duration
	probe   string // a key to try the store with

	wire    *wire // nil while there is no connection
	refused error // why a part of the last batch was, if it was
}

// put returns the answers to all questions, nil for those that the store refused by itself, or an error, after which the link is
// closed. A connection that was lost since the last time, as when the store was
// restarted or does not keep idle ones, is no failure: another is tried.
func (l *link) put(ctx context.Context, questions []question) ([]*answer, error) {
	used := l.wire != nil
	l.refused = nil
	answers, err := l.tryPut(ctx, questions)
	if err != nil && used && isLoss(err) {
		answers, err = l.tryPut(ctx, questions)
	}
	return answers, err
}

// isLoss tells the end of a connection from a store that says no, or nonsense, or nothing.
func isLoss(err error) bool {
	var slow net.Error
	_, refused := errors.AsType[refusal](err)
	return !refused && !errors.Is(err, errForeign) && (!errors.As(err, &slow) || !slow.Timeout())
}

func (l *link) tryPut(ctx context.Context, questions []question) (answers []*answer, err error) {
	if l.wire == nil {
		err = l.open(ctx)
	} else if len(questions) == 0 {
		err = l.look(ctx, l.timeout)
	}
	if err == nil && len(questions) > 0 {
		answers, err = l.exchange(ctx, questions)
	}
	if err != nil {
		l.close()
		return nil, l.describe(err)
	}
	return answers, nil
}

// open connects and tries the script, which need not be known to the store.
func (l *link) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	l.wire = newWire(conn)
	if err := l.introduce(ctx); err != nil {
		return err
	}
	if err := l.look(ctx, openTimeout); err != nil {
		return err
	}
	return l.look(ctx, l.timeout) // a store that is too slow for exchanges is away, too
}

// introduce authenticates, and selects the database.
func (l *link) introduce(ctx context.Context) error {
	defer l.within(ctx, openTimeout)()
	replies := 0
	switch {
	case l.at.user != "":
		l.wire.command("AUTH", l.at.user, l.at.password)
		replies++
	case l.at.password != "":
		l.wire.command("AUTH", l.at.password)
		replies++
	}
	if l.at.db != 0 {
		l.wire.command("SELECT", strconv.Itoa(l.at.db))
		replies++
	}
	if replies == 0 {
		return nil
	}
	if err := l.wire.send(); err != nil {
		return err
	}
	for range replies {
		if err := l.wire.status(); err != nil {
			return err
		}
	}
	return nil
}

// within bounds what is sent and read until the function that it returns is called.
func (l *link) within(ctx context.Context, timeout time.Duration) (over func()) {
	end := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	w := l.wire
	_ = w.SetDeadline(end) // an error comes again with the next byte
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// look has the script write a key that expires at once: a store that answers, but
// cannot write, is as good as away.
func (l *link) look(ctx context.Context, timeout time.Duration) error {
	defer l.within(ctx, timeout)()
	l.wire.command("EVAL", script, "1", l.probe, "1", "1", "0")
	if err := l.wire.send(); err != nil {
		return err
	}
	_, err := l.wire.numbers()
	return err
}

func (l *link) close() {
	if l.wire != nil {
		_ = l.wire.Close() // nothing was written that could be lost
		l.wire = nil
	}
}

// exchange is one round trip, and a second one when the store has lost the script. If something is refused, the store is asked about
// itself: a refusal that is about one caller's bucket is no reason to be without all others.
func (l *link) exchange(ctx context.Context, questions []question) ([]*answer, error) {
	answers, refused, err := l.pipe(ctx, questions, false)
	if err == nil && strings.HasPrefix(string(refused), "NOSCRIPT") {
		answers, refused, err = l.pipe(ctx, questions, true)
	}
	if err != nil || refused == "" {
		return answers, err
	}
	if refused.elsewhere() || l.look(ctx, l.timeout) != nil {
		return nil, refused
	}
	l.refused = l.describe(refused)
	return answers, nil
}

var scriptHash = func() string {
	sum := sha1.Sum([]byte(script)) //nolint:gosec // so the store names scripts
	return hex.EncodeToString(sum[:])
}()

// pipe sends the questions together; the first brings the script along if teach is set. refused is the last refusal among the answers.
func (l *link) pipe(ctx context.Context, questions []question, teach bool) (answers []*answer, refused refusal, err error) {
	defer l.within(ctx, l.timeout)()
	for i, q := range questions {
		command, what := "EVALSHA", scriptHash
		if teach && i == 0 {
			command, what = "EVAL", script
		}
		l.wire.command(command, what, "1", q.key, strconv.FormatFloat(q.interval, 'g', -1, 64), strconv.Itoa(q.burst), strconv.Itoa(q.want))
	}
	if err := l.wire.send(); err != nil {
		return nil, "", err
	}
	answers = make([]*answer, len(questions))
	for i := range questions {
		n, err := l.wire.numbers()
		if no, ok := errors.AsType[refusal](err); ok {
			refused = no
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if answers[i], err = questions[i].answer(n); err != nil {
			return nil, "", err
		}
	}
	if l.wire.r.Buffered() > 0 { // the next answers would be taken for those to other questions
		return nil, "", fmt.Errorf("more answers than questions: %w", errForeign)
	}
	return answers, refused, nil
}

// answer makes sense of what the script returned, or says that there is none in it. No token takes longer than the interval, and no
// bucket longer than all of its tokens; the slack is for what a double rounds off.
func (q *question) answer(n [3]int64) (*answer, error) {
	const slack = 1 + 1e-6 // and three microseconds
	granted, wait, full := n[0], n[1], n[2]
	switch {
	case granted < 0, granted > int64(q.want), (granted < int64(q.want)) != (wait > 0),
		wait < 0, float64(wait) > q.interval*slack+3, full < 0, float64(full) > q.interval*float64(q.burst)*slack+3:
		return nil, fmt.Errorf("the script granted %d of %d, to wait %d us, full in %d us, which makes no sense: %w", granted, q.want, wait, full, errForeign)
	}
	return &answer{granted: int(granted), wait: time.Duration(wait) * time.Microsecond, full: time.Duration(full) * time.Microsecond}, nil
}

// describe says where err is from, without the password, which a server could repeat.
func (l *link) describe(err error) error {
	if pw := l.at.password; pw != "" && strings.Contains(err.Error(), pw) {
		err = errors.New(strings.ReplaceAll(err.Error(), pw, "…"))
	}
	if refused, ok := errors.AsType[refusal](err); ok && refused.elsewhere() {
		err = fmt.Errorf("%w (it is one server of a cluster; name one that has all keys)", err)
	}
	return fmt.Errorf("store at %s: %w", l.at, err)
}

// address is what a URL of a store says.
type address struct {
	network, host  string // host with its port, or the socket's path
	user, password string
	db             int
	tls            bool
	serverName     string
}

// parseURL reads the URL of a store: redis://host:port/db, rediss:// for TLS,
// or unix:///path?db=n, with user and password if need be. The error quotes
// nothing of it, because any part may be a piece of a password that was written
// without its percent signs.
func parseURL(raw string) (*address, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return nil, errors.New("not a URL; one looks like redis://127.0.0.1:6379/0, and a password in it has %40 for @ and %2F for /")
	}
	a := &address{network: "tcp"}
	db := ""
	switch u.Scheme {
	case "redis", "rediss":
		if u.Hostname() == "" {
			return nil, errors.New("the URL names no host; one looks like redis://127.0.0.1:6379/0")
		}
		port := u.Port()
		if port == "" {
			port = "6379"
		}
		a.host, a.serverName = net.JoinHostPort(u.Hostname(), port), u.Hostname()
		a.tls = u.Scheme == "rediss"
		db = strings.TrimPrefix(u.Path, "/")
		if u.RawQuery != "" {
			return nil, errors.New("the URL of a store has nothing behind a question mark")
		}
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, errors.New("the URL names no absolute path; one looks like unix:///run/redis/redis.sock")
		}
		a.network, a.host = "unix", u.Path
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil || len(q) > 1 || len(q) == 1 && len(q["db"]) != 1 {
			return nil, errors.New("the URL of a store's socket has nothing but db=n behind a question mark")
		}
		db = q.Get("db")
	default:
		return nil, errors.New(`the URL of a store begins with "redis://", "rediss://" or "unix://"`)
	}
	if db != "" {
		n, err := strconv.ParseUint(db, 10, 16)
		if err != nil {
			return nil, errors.New("the URL's database is not a number; one looks like redis://127.0.0.1:6379/0")
		}
		a.db = int(n)
	}
	if u.Fragment != "" {
		return nil, errors.New("the URL of a store has nothing behind a #; in a password, that is %23")
	}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	return a, nil
}

// String is the address without user and password.
func (a *address) String() string {
	switch {
	case a.network == "unix":
		return "unix://" + a.host
	case a.tls:
		return "rediss://" + a.host
	}
	return "redis://" + a.host
}

// GoString does not print the password either.
func (a *address) GoString() string { return a.String() }

func printable(raw string) string {
	a, err := parseURL(raw)
	if err != nil {
		return "a URL that is not valid"
	}
	return a.String()
}

// dial returns how to connect to a; nil roots are the system's.
func (a *address) dial(roots *x509.CertPool) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		d := new(net.Dialer)
		if a.tls {
			d := &tls.Dialer{NetDialer: d, Config: &tls.Config{ServerName: a.serverName, RootCAs: roots, MinVersion: tls.VersionTLS12}}
			return d.DialContext(ctx, a.network, a.host)
		}
		return d.DialContext(ctx, a.network, a.host)
	}
}
