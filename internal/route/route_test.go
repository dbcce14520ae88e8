package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func compile(t testing.TB, rules ...Rule) *Table {
	t.Helper()
	table, err := Compile(rules)
	if err != nil {
		t.Fatalf("Compile(%+v): %v", rules, err)
	}
	return table
}

func (t *Table) match(listener, host, path, method string) (int, Verdict) {
	return t.Match(listener, []byte(host), []byte(path), []byte(method))
}

func TestMatch(t *testing.T) {
	rules := []Rule{
		0: {PathPrefix: "/"},
		1: {PathPrefix: "/bank"},
		2: {PathPrefix: "/bank/accounts/"},
		3: {Host: "api.localhost"},
		4: {Host: "*.localhost", PathPrefix: "/bank"},
		5: {Host: "*.eu.localhost"},
		6: {Host: "api.localhost", PathPrefix: "/admin", Methods: []string{"GET"}},
		7: {Host: "[::1]", PathPrefix: "/six"},
		8: {PathPrefix: "/bank", Methods: []string{"GET"}},
		9: {Listener: "payments", PathPrefix: "/pay", Methods: []string{"POST"}},
		// '-' sorts before '/': a neighbour must not hide a segment.
		10: {PathPrefix: "/bank-x"},
		11: {PathPrefix: "/caf%C3%A9"},
		12: {PathPrefix: "/trace", Methods: []string{"TRACE"}},
	}
	table := compile(t, rules...)
	for _, tt := range []struct {
		name, listener, host, path, method string
		rule                               int
		verdict                            Verdict
	}{
		{"anything else goes to the root", "http", "localhost", "/x", "GET", 0, Found},
		{"the asterisk goes to the root", "http", "localhost", "*", "OPTIONS", 0, Found},
		{"a prefix covers itself", "http", "localhost", "/bank", "GET", 1, Found},
		{"a prefix covers a trailing slash", "http", "localhost", "/bank/", "GET", 1, Found},
		{"a prefix covers what is below", "http", "localhost", "/bank/x/y", "GET", 1, Found},
		{"a prefix covers whole segments only", "http", "localhost", "/banking", "GET", 0, Found},
		{"the longest prefix wins", "http", "localhost", "/bank/accounts/7", "GET", 2, Found},
		{"a slash at the end of a prefix does not matter", "http", "localhost", "/bank/accounts", "GET", 2, Found},
		{"a neighbour that sorts between", "http", "localhost", "/bank-x/y", "GET", 10, Found},
		{"a host before none", "http", "api.localhost", "/bank/accounts", "GET", 3, Found},
		{"a host with a port", "http", "api.localhost:8080", "/", "GET", 3, Found},
		{"a host in capitals", "http", "API.localHOST:80", "/", "GET", 3, Found},
		{"a host with the dot of the root", "http", "api.localhost.:80", "/", "GET", 3, Found},
		{"a wildcard before none", "http", "a.localhost", "/bank/accounts", "GET", 4, Found},
		{"a wildcard at any depth", "http", "a.b.localhost", "/bank", "GET", 4, Found},
		{"a wildcard that does not cover the path", "http", "a.localhost", "/x", "GET", 0, Found},
		{"a wildcard is not for the name itself", "http", "localhost", "/bank", "GET", 1, Found},
		{"the longer wildcard", "http", "a.eu.localhost", "/bank", "GET", 5, Found},
		{"an empty label is no name", "http", ".eu.localhost", "/bank", "GET", 4, Found},
		{"an address in brackets", "http", "[::1]:8080", "/six", "GET", 7, Found},
		{"no host at all", "http", "", "/bank", "GET", 1, Found},
		{"methods select", "http", "api.localhost", "/admin", "GET", 6, Found},
		{"GET brings HEAD", "http", "api.localhost", "/admin", "HEAD", 6, Found},
		{"another method falls to no other prefix", "http", "api.localhost", "/admin", "POST", -1, MethodNotAllowed},
		{"methods are case-sensitive", "http", "api.localhost", "/admin", "get", -1, MethodNotAllowed},
		{"another method falls to the next rule with the prefix", "http", "localhost", "/bank", "PUT", 1, Found},
		{"TRACE has to be named", "http", "localhost", "/x", "TRACE", -1, MethodNotAllowed},
		{"TRACK has to be named", "http", "localhost", "/x", "TRACK", -1, MethodNotAllowed},
		{"trace has to be named", "http", "localhost", "/x", "trace", -1, MethodNotAllowed},
		{"TRACE is named", "http", "localhost", "/trace", "TRACE", 12, Found},
		{"a rule of another listener", "http", "localhost", "/pay", "POST", 0, Found},
		{"a rule of this listener", "payments", "localhost", "/pay", "POST", 9, Found},
		{"rules of all listeners hold here too", "payments", "localhost", "/bank", "POST", 1, Found},
		{"an escaped prefix", "http", "localhost", "/caf%C3%A9/x", "GET", 11, Found},
		{"ordinary escapes", "http", "localhost", "/bank/a%20b", "GET", 1, Found},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, v := table.match(tt.listener, tt.host, tt.path, tt.method)
			if rule != tt.rule || v != tt.verdict {
				t.Errorf("Match(%q, %q, %q, %q) = %d, %v; want %d, %v", tt.listener, tt.host, tt.path, tt.method, rule, v, tt.rule, tt.verdict)
			}
		})
	}
}

func TestMatchRefuses(t *testing.T) {
	table := compile(t,
		Rule{PathPrefix: "/read", Methods: []string{"GET", "OPTIONS"}},
		Rule{PathPrefix: "/read/write", Methods: []string{"POST"}},
		Rule{Host: "other.test"},
	)
	for _, tt := range []struct {
		host, path, method string
		verdict            Verdict
		allowed            []string
	}{
		{"localhost", "/", "GET", NotFound, nil},
		{"localhost", "/read", "POST", MethodNotAllowed, []string{"GET", "HEAD", "OPTIONS"}},
		{"localhost", "/read/write", "PUT", MethodNotAllowed, []string{"POST"}},
		{"localhost", "/read/write", "GET", MethodNotAllowed, []string{"POST"}},
		{"other.test", "/", "BREW", Found, []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}},
		{"other.test", "/", "TRACE", MethodNotAllowed, []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}},
	} {
		rule, v := table.match("http", tt.host, tt.path, tt.method)
		if v != tt.verdict || (rule == -1) != (v != Found) {
			t.Errorf("Match(%q, %q, %q) = %d, %v; want %v", tt.host, tt.path, tt.method, rule, v, tt.verdict)
		}
		if got := table.Allowed("http", []byte(tt.host), []byte(tt.path)); !slices.Equal(got, tt.allowed) {
			t.Errorf("Allowed(%q, %q) = %q; want %q", tt.host, tt.path, got, tt.allowed)
		}
	}
}

func TestPathsThatReadTwoWaysAreAmbiguous(t *testing.T) {
	table := compile(t,
		Rule{PathPrefix: "/public"},
		Rule{PathPrefix: "/admin"},
		Rule{PathPrefix: "/admin/open"},
		Rule{PathPrefix: "/caf%C3%A9"},
		Rule{Host: "all.test"},
	)
	for _, tt := range []struct {
		path    string
		verdict Verdict
	}{
		{"/public/../admin", Ambiguous},
		{"/public/./../admin/x", Ambiguous},
		{"/public/..", Ambiguous}, // /, which has no rule
		{"/public/x/..", Found},
		{"/public/a/../b", Found},
		{"/public/.hidden", Found},
		{"/public/...", Found},
		{"/./admin", Ambiguous},
		{"/x/../admin", Ambiguous}, // no rule as it stands
		{"/x/../y", NotFound},
		{"//admin", Ambiguous},
		{"/admin//open", Ambiguous},
		{"/admin//x", Found},
		{"/public//../admin", Ambiguous}, // by RFC 3986 /public/admin, but /admin once slashes are merged
		{"/public/x//../../../admin", Ambiguous},
		{"/public/%2e%2e/admin", Ambiguous},
		{"/public/%2E./admin", Ambiguous},
		{"/public/..%2fadmin", Ambiguous},
		{"/public%2F..%2Fadmin", Ambiguous},
		{"/admin%2Fopen", Ambiguous},
		{"/public/%252e%252e/admin", Ambiguous},
		{"/public/..%252fadmin", Ambiguous},
		{"/public/%25%32%65%25%32%65/admin", Ambiguous},
		{`/public\..\admin`, Ambiguous},
		{`/public/..\admin`, Ambiguous},
		{"/public/..%5cadmin", Ambiguous},
		{"/public/..%255cadmin", Ambiguous},
		{`/public/a\b`, Found},
		{"/public/..;/admin", Ambiguous},
		{"/public/..;v=1/admin", Ambiguous},
		{"/public/a;v=1/b", Found},
		{"/%61dmin", Ambiguous},
		{"/admin/%6fpen", Ambiguous},
		{"/caf%c3%a9", Ambiguous}, // the same to a server as /caf%C3%A9, which has a rule
		{"/public/caf%c3%a9", Found},
		{"/public/100%", Found},
		{"/public/100%zz", Found},
		{"/public/%00", Found},
		{"/public/a%20b%3Fc%23d", Found},
		{"/public/" + strings.Repeat("a/", 4000) + strings.Repeat("../", 4001) + "admin", Ambiguous},
	} {
		if rule, v := table.match("http", "localhost", tt.path, "GET"); v != tt.verdict || (rule == -1) != (v != Found) {
			t.Errorf("Match(%q) = %d, %v; want %v", tt.path, rule, v, tt.verdict)
		}
	}
	if _, v := compile(t, Rule{Host: "all.test"}, Rule{}).match("http", "all.test", "/a/../../%2e//", "GET"); v != Found {
		t.Errorf("without any prefix every reading has the same rule, yet the verdict is %v", v)
	}
}

func TestAmbiguityAsksForTheMethodToo(t *testing.T) {
	table := compile(t, Rule{}, Rule{PathPrefix: "/admin", Methods: []string{"POST"}})
	for _, method := range []string{"GET", "POST"} { // which /admin refuses, and takes
		if _, v := table.match("http", "localhost", "/x/../admin", method); v != Ambiguous {
			t.Errorf("%s /x/../admin: %v; want ambiguous", method, v)
		}
	}
}

// Servers exist that read each of these as /admin.
func TestSpellingsOfAnotherRoute(t *testing.T) {
	table := compile(t, Rule{PathPrefix: "/admin"}, Rule{})
	for _, path := range []string{
		"/admin;x", "/admin;a=b/c", "/;/admin", "/;x=y/admin/z", "/%61dmin;a=b/c", "/admin%3bx", "/ADMIN", "/Admin/x", "/%41dmin",
		"/admin.", "/admin./x", "/admin..", "/admin%20", "/admin%20/x", "/admin.%20.", "/admin%00", "/admin%00.html", "/x%00/../../admin%00",
		"/admin%3f", "/admin%3Fa", "/admin%23", "/x/.. /../admin", "/x/..%20/admin", "/x/;/../../admin", `/x\..\ADMIN;y`, "/.../admin", "/x/%2e%2E;/Admin.",
		"/admin%09", "/admin%0a", "/admin%a0", "/admin%85/x", "/%c1%a1dmin", "/x%c0%af..%c0%afadmin", "/%e0%81%a1dmin", "/%u0061dmin",
		"/%ef%bd%81dmin", "/x%uff0f..%U002Fadmin",
	} {
		if rule, v := table.match("http", "localhost", path, "GET"); v != Ambiguous {
			t.Errorf("Match(%q) = %d, %v; want ambiguous", path, rule, v)
		}
	}
	for path, want := range map[string]int{
		"/admin": 0, "/admin/x;y": 0, "/admin/X.": 0, "/administration": 1, "/x;admin": 1, "/x/ADMIN": 1, "/x.y": 1, "/a.dmin": 1, "/x%20y": 1, "/x?": 1,
		"/.well-known/x": 1, "/users/42;v=1": 1, "/Users/Ann": 1, "/q%3f": 1, "/x..": 1, "/%2E%2E": 1,
	} {
		if rule, v := table.match("http", "localhost", path, "GET"); rule != want || v != Found {
			t.Errorf("Match(%q) = %d, %v; want %d", path, rule, v, want)
		}
	}
	// Where both spellings are meant, each has a route.
	table = compile(t, Rule{PathPrefix: "/admin"}, Rule{PathPrefix: "/Admin"}, Rule{})
	for path, want := range map[string]int{"/admin": 0, "/Admin/x": 1, "/x": 2} {
		if rule, v := table.match("http", "localhost", path, "GET"); rule != want || v != Found {
			t.Errorf("Match(%q) = %d, %v; want %d", path, rule, v, want)
		}
	}
	for _, path := range []string{"/ADMIN", "/aDmin/x"} {
		if _, v := table.match("http", "localhost", path, "GET"); v != Ambiguous {
			t.Errorf("Match(%q): %v; want ambiguous", path, v)
		}
	}
}

// What is sent stays below the prefix that is put before it, and below what the rule was chosen for.
func TestWhatIsSentStaysBelowItsPrefix(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		path string
		want Verdict
	}{
		{Rule{AddPrefix: "/tenant-a"}, "/x/y", Found},
		{Rule{AddPrefix: "/tenant-a"}, "/x/../y", Found},
		{Rule{AddPrefix: "/tenant-a"}, "/x%2f..%2fy;z/A.", Found},
		{Rule{AddPrefix: "/tenant-a"}, "/../out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/%2e%2e/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/%252e%252e/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..%2fout", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, `/..\out`, Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/x/../../out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/x//../../out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..;x/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..%20/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..%00/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/../tenant-a/x", Found},
		{Rule{AddPrefix: "/tenant%20a"}, "/x%20y", Found},
		{Rule{AddPrefix: "/tenant%20a"}, "/%2e./y", Ambiguous},
		{Rule{PathPrefix: "/bank", StripPrefix: "/bank", AddPrefix: "/tenant-a/v1"}, "/bank/x", Found},
		{Rule{PathPrefix: "/bank", StripPrefix: "/bank", AddPrefix: "/tenant-a/v1"}, "/bank/../../bank/out", Ambiguous},
		{Rule{PathPrefix: "/bank", StripPrefix: "/bank", AddPrefix: "/tenant-a/v1"}, "/bank/x/../../bank/y", Ambiguous},
		{Rule{PathPrefix: "/bank", StripPrefix: "/bank"}, "/bank/../x", Ambiguous}, // no rule is for /x
		{Rule{PathPrefix: "/bank", AddPrefix: "/v2"}, "/bank/x/..", Found},
		{Rule{PathPrefix: "/bank/api", StripPrefix: "/bank"}, "/bank/api/x/../y", Found},
		{Rule{PathPrefix: "/bank/api", StripPrefix: "/bank"}, "/bank/api/../../bank/api/x", Ambiguous}, // sent, it is /bank/api/x
		{Rule{AddPrefix: "/tenant-a"}, "/%c0%ae%c0%ae/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/%u002e%u002e/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..%ef%bc%8fout", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "/..%09/out", Ambiguous},
		{Rule{AddPrefix: "/tenant-%C3%A0"}, "/caf%C3%A9%20%C3%A0/x%ef%bc%8fy", Found},
		{Rule{PathPrefix: "/bank", AddPrefix: "/v2"}, "/bank/../bank/x", Found},
		{Rule{PathPrefix: "/bank/api", StripPrefix: "/bank", AddPrefix: "/v2"}, "/bank/api/..%2fx", Ambiguous},
		{Rule{AddPrefix: "/tenant-a"}, "*", Found},
		{Rule{AddPrefix: "/tenant-a"}, "/" + strings.Repeat(`a%2fb;c././/\`, 1000), Ambiguous}, // more readings than are looked at
		{Rule{AddPrefix: "/tenant-a"}, "/" + strings.Repeat("a%20b", 2000), Found},
	} {
		if _, v := compile(t, tt.rule).match("http", "localhost", tt.path, "GET"); v != tt.want {
			t.Errorf("with %+v, Match(%.80q) = %v; want %v", tt.rule, tt.path, v, tt.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		want string
	}{
		{Rule{Host: "localhost:80"}, "port"},
		{Rule{Host: "::1"}, "brackets"},
		{Rule{Host: "[::1]:80"}, "port"},
		{Rule{Host: "[0:0:0:0:0:0:0:1]"}, `"[::1]"`},
		{Rule{Host: "[127.0.0.1]"}, "IPv6"},
		{Rule{Host: "["}, "IPv6"},
		{Rule{Host: "a..b"}, "empty"},
		{Rule{Host: "a.b."}, "empty"},
		{Rule{Host: "*."}, "empty"},
		{Rule{Host: "*"}, "first"},
		{Rule{Host: "a.*.b"}, "first"},
		{Rule{Host: "bücher.test"}, "xn--"},
		{Rule{Host: "a b"}, "character"},
		{Rule{Host: strings.Repeat("a.", 130) + "b"}, "253"},
		{Rule{PathPrefix: "bank"}, "slash"},
		{Rule{PathPrefix: "/a//b"}, "doubled slash"},
		{Rule{PathPrefix: "//"}, "doubled slash"},
		{Rule{PathPrefix: `/a\b`}, `"/a%5Cb"`},
		{Rule{PathPrefix: "/a%5Cb"}, "backslash"},
		{Rule{PathPrefix: "/a/../b"}, "segment"},
		{Rule{PathPrefix: "/a/..;x/b"}, "segment"},
		{Rule{PathPrefix: "/%2e%2e"}, `"/.."`},
		{Rule{PathPrefix: "/a%2fb"}, `"/a/b"`},
		{Rule{PathPrefix: "/a%252fb"}, "doubly"},
		{Rule{PathPrefix: "/a b"}, `"/a%20b"`},
		{Rule{PathPrefix: "/a?b"}, `"/a%3Fb"`},
		{Rule{PathPrefix: "/café"}, `"/caf%C3%A9"`},
		{Rule{PathPrefix: "/caf%c3%a9"}, `"/caf%C3%A9"`},
		{Rule{PathPrefix: "/100%"}, `"/100%25"`},
		{Rule{Methods: []string{"GET", ""}}, "method"},
		{Rule{PathPrefix: "/a;b"}, "end a segment"},
		{Rule{PathPrefix: "/a%3Fb"}, "end a segment"},
		{Rule{PathPrefix: "/a%00"}, "end a segment"},
		{Rule{PathPrefix: "/a."}, "dot or a blank"},
		{Rule{PathPrefix: "/..."}, "dot or a blank"},
		{Rule{PathPrefix: "/a%09"}, "dot or a blank"},
		{Rule{PathPrefix: "/%C0%AFa"}, "overlong"},
		{Rule{PathPrefix: "/%EF%BC%8F"}, "full-width"},
		{Rule{PathPrefix: "/a%20/b"}, "dot or a blank"},
		{Rule{AddPrefix: "/a/../b"}, "added prefix"},
	} {
		_, err := Compile([]Rule{{}, tt.rule})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Compile(%+v): %v; want an error that says %s", tt.rule, err, tt.want)
		}
	}
}

func TestNamesHost(t *testing.T) {
	table := compile(t, Rule{}, Rule{Host: "api.localhost"}, Rule{Host: "*.test", PathPrefix: "/x"}, Rule{Listener: "b", Host: "b.only"})
	for host, want := range map[string]bool{
		"api.localhost": true, "API.localhost:80": true, "localhost": false, "a.test": true, "test": false, "evil.example": false, "b.only": false, "": false,
	} {
		if got := table.NamesHost("a", []byte(host)); got != want {
			t.Errorf("NamesHost(%q) = %v; want %v", host, got, want)
		}
	}
	if !table.NamesHost("b", []byte("b.only")) {
		t.Error("a host that a rule of the listener names is not known")
	}
}

func TestNames(t *testing.T) {
	rules := []Rule{
		{}, {PathPrefix: "/"}, {PathPrefix: "/bank/"}, {Host: "API.localhost", PathPrefix: "/v1"}, {Listener: "b"},
		{PathPrefix: "/pay", Listener: "a"}, {PathPrefix: "/pay", Listener: "b"},
		{PathPrefix: "/m", Methods: []string{"GET"}}, {PathPrefix: "/m", Methods: []string{"PUT", "POST"}}, {PathPrefix: "/m"},
	}
	want := []string{"default", "default#2", "/bank", "api.localhost/v1", "/", "/pay@a", "/pay@b", "GET /m", "PUT,POST /m", "/m"}
	if got := Names(rules); !slices.Equal(got, want) {
		t.Errorf("Names() = %q; want %q", got, want)
	}
}

func hundredRoutes(t testing.TB) *Table {
	rules := []Rule{{}}
	for i := range 33 {
		rules = append(rules,
			Rule{Host: fmt.Sprintf("h%d.localhost", i), PathPrefix: "/api"},
			Rule{PathPrefix: fmt.Sprintf("/service-%d", i)},
			Rule{PathPrefix: fmt.Sprintf("/service-%d/v2", i), Methods: []string{"GET", "POST"}})
	}
	return compile(t, rules...)
}

var matchCases = []struct{ name, host, path string }{
	{"host", "h17.localhost:8080", "/api/accounts/4711"},
	{"prefix", "localhost:8080", "/service-20/v2/accounts/4711"},
	{"root", "localhost:8080", "/accounts/4711/transactions"},
	{"escaped", "localhost:8080", "/service-20/v2/a%20b"},
	{"dots", "localhost:8080", "/service-20/./v2//x%2fy"},
}

func TestMatchAllocatesNothing(t *testing.T) {
	table := hundredRoutes(t)
	for _, tt := range append(matchCases, struct{ name, host, path string }{"capitals", "H17.localhost", "/API"}) {
		host, path, method := []byte(tt.host), []byte(tt.path), []byte("GET")
		if n := testing.AllocsPerRun(100, func() { table.Match("http", host, path, method) }); n != 0 {
			t.Errorf("%s: Match(%q, %q) allocates %v times", tt.name, tt.host, tt.path, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	table := hundredRoutes(b)
	for _, tt := range matchCases {
		b.Run(tt.name, func(b *testing.B) {
			host, path, method := []byte(tt.host), []byte(tt.path), []byte("GET")
			b.ReportAllocs()
			for b.Loop() {
				table.Match("http", host, path, method)
			}
		})
	}
	b.Run("only", func(b *testing.B) {
		table := compile(b, Rule{})
		host, path, method := []byte("localhost:8080"), []byte("/accounts/4711/transactions"), []byte("GET")
		b.ReportAllocs()
		for b.Loop() {
			table.Match("http", host, path, method)
		}
	})
}
