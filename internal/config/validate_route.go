package config

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// checkRoutes checks the routes, and makes the one that everything takes when
// there are none.
func (v *validation) checkRoutes() {
	only := ""
	if names := v.names("upstream"); len(names) == 1 {
		only = names[0]
	}
	if len(v.cfg.Route) == 0 {
		if len(v.cfg.Upstream) > 1 && v.understood("route") {
			v.problem(v.top, []string{"route"}, "there is none, and several upstreams ("+strings.Join(v.names("upstream"), ", ")+")", `add a [[route]] with upstream = "NAME" for each`)
		}
		r := Default().Route[0]
		r.Upstream, r.MaxRequestBody = only, v.cfg.Limits.MaxRequestBody
		v.cfg.Route = []Route{r}
		return
	}
	same := make(map[requests][]int)
	for i := range v.cfg.Route {
		r := &v.cfg.Route[i]
		v.route(r, only, "route", strconv.Itoa(i+1))
		if !v.selective(i) {
			continue
		}
		k := requests{r.Listener, r.Host, r.PathPrefix}
		v.reachable(i, same[k])
		same[k] = append(same[k], i)
	}
}

// requests are those that routes which differ in their methods alone are for.
type requests struct{ listener, host, prefix string }

func (v *validation) route(r *Route, only string, table ...string) {
	key := func(step ...string) []string { return append(table[:2:2], step...) }
	if r.PathPrefix == "" {
		r.PathPrefix = "/"
	}
	r.Host = canonicalHost(r.Host)
	if !v.set(key("max_request_body")...) {
		r.MaxRequestBody = v.cfg.Limits.MaxRequestBody
	}
	switch {
	case r.Upstream != "":
		v.refers(key("upstream"), "upstream", r.Upstream)
	case only != "":
		r.Upstream = only
	case len(v.cfg.Upstream) > 1 && v.fine(key("upstream")...) && v.understood(table...):
		v.wrong(key("upstream"), "is missing, and there are several upstreams", "write upstream = "+strings.Join(quoteAll(v.names("upstream")), " or "))
	}
	if r.Listener != "" {
		v.refers(key("listener"), "listener", r.Listener)
	}
	if r.StripPrefix != "" && r.PathPrefix != r.StripPrefix && !strings.HasPrefix(r.PathPrefix, r.StripPrefix+"/") && v.known(key("path_prefix")...) {
		v.wrong(key("strip_prefix"), quote(r.StripPrefix)+" is not what path_prefix begins with, "+quote(r.PathPrefix), `write path_prefix = "`+r.StripPrefix+`"`)
	}
	if r.RateLimit != nil {
		v.rate(r.RateLimit, key)
	}
	v.edits(r.RequestHeaders, key("request_headers"))
	v.edits(r.ResponseHeaders, key("response_headers"))
}

// rate completes the limit of a route. Its burst is to its rate what it is by
// default in [rate_limit].
func (v *validation) rate(r *RateLimit, key func(...string) []string) {
	rate, table := key("rate_limit", "requests_per_second"), key("rate_limit")
	if !v.set(rate...) && v.understood(table...) {
		at, inTable := v.opened[dotted(table)]
		for _, step := range []string{"burst", "key"} {
			if !inTable && v.set(key("rate_limit", step)...) {
				at = v.at(key("rate_limit", step)...)
			}
		}
		v.problem(at, rate, "is missing", "write requests_per_second = 50, or remove rate_limit")
	}
	if !v.set(key("rate_limit", "burst")...) {
		r.Burst = int(min(max(math.Ceil(2*r.RequestsPerSecond), 1), maxRate))
	}
	if r.Key == "" {
		r.Key = RateKeyAll
	}
}

// edits reports a field that is edited in two ways. Names do not care for case.
func (v *validation) edits(e HeaderEdits, table []string) {
	seen := make(map[string]string)
	note := func(action, name string, path []string) {
		lower := strings.ToLower(name)
		if before, twice := seen[lower]; twice {
			v.wrong(path, quote(name)+" is in "+before+" as well", "keep one of the two")
			return
		}
		seen[lower] = action
	}
	for _, name := range slices.Sorted(maps.Keys(e.Set)) {
		note("set", name, append(table[:len(table):len(table)], "set", name))
	}
	for _, name := range e.Remove {
		note("remove", name, append(table[:len(table):len(table)], "remove"))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Add)) {
		note("add", name, append(table[:len(table):len(table)], "add", name))
	}
}

// selective reports whether all is known that tells which requests a route is for.
func (v *validation) selective(i int) bool {
	return !slices.ContainsFunc([]string{"listener", "host", "path_prefix", "methods"}, func(step string) bool {
		return !v.known("route", strconv.Itoa(i+1), step)
	})
}

// reachable reports a route that an earlier one, among those for the same requests, leaves nothing to.
func (v *validation) reachable(i int, earlier []int) {
	r := v.cfg.Route[i]
	table := []string{"route", strconv.Itoa(i + 1)}
	for _, j := range earlier {
		if covers(v.cfg.Route[j].Methods, r.Methods) {
			other := []string{"route", strconv.Itoa(j + 1)}
			v.wrong(table, "never matches: "+dotted(other)+" ("+v.at(other...).String()+") takes the same requests", "change host, path_prefix or methods of one of them, or remove it")
			return
		}
	}
}

// covers reports whether a route for the methods a takes all that one for b
// could. None means all, and GET brings HEAD.
func covers(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	return !slices.ContainsFunc(b, func(m string) bool {
		return !slices.Contains(a, m) && !(m == "HEAD" && slices.Contains(a, "GET"))
	})
}
