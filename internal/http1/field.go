package http1

import "bytes"

// ID names a field whose meaning this package or the engine knows.
type ID uint8

const (
	Other       ID = iota // every name that is not listed here
	Underscored           // a field that only we may write, spelt with another mark for a hyphen: X_Forwarded_For
	Host
	Connection
	KeepAlive
	ProxyConnection
	TE
	Trailer
	TransferEncoding
	Upgrade
	ContentLength
	ContentType
	Expect
	MaxForwards
	Via
	Forwarded
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XForwarded // any other X-Forwarded-*, X-Real-IP and their like: what a proxy says of the request it was sent; see family
	ClientCert // Client-Cert, X-Forwarded-Client-Cert and their like: what a proxy says of the certificate it was shown; see family
	Origin
	SecFetchSite
	AccessControlRequestMethod
	Authorization
	ProxyAuthorization
	ProxyAuthenticate
	WWWAuthenticate
	HTTP2Settings
	Date
	Server
	Location
	ContentLocation
	SetCookie
	RetryAfter
	IdempotencyKey
	HTTPProxy   // Proxy, which CGI programs get as HTTP_PROXY
	ProxyStatus // RFC 9209
	idCount
)

// Field is one field line; Name and Value are as sent, without the white space around the value.
type Field struct {
	Name, Value []byte
	ID          ID
	flags       flags
}

type flags uint8

const (
	nominated flags = 1 << iota // a Connection option has this name
	plain                       // the line is "Name: Value" CRLF, byte for byte, in the buffer it was parsed from
)

// raw is the whole line of a plain field with its CRLF: Name's capacity reaches to the end of the buffer.
func (f *Field) raw() []byte { return f.Name[:len(f.Name)+2+len(f.Value)+2] }

// trait is what else there is to know of a known name.
type trait uint8

const (
	ours      trait = 1 << iota // other spellings of it are Underscored
	fixed                       // operators can not edit it: Host, framing, hop-by-hop
	noTrailer                   // not allowed in a trailer section, RFC 9110 section 6.5.1
)

type knownName struct {
	name   string // in lower case
	usual  string // as most programs write it
	id     ID
	traits trait
	next   uint8 // index of the next name with the same hash, 0 at the end
}

// known is a hash table with chains inside: heads holds the first index of each hash, 0 for none.
var known, heads = func() (names [96]knownName, heads [256]uint8) {
	all := []knownName{
		{name: "host", id: Host, traits: ours | fixed | noTrailer},
		{name: "connection", id: Connection, traits: ours | fixed | noTrailer},
		{name: "keep-alive", id: KeepAlive, traits: ours | fixed | noTrailer},
		{name: "proxy-connection", id: ProxyConnection, traits: ours | fixed | noTrailer},
		{name: "te", id: TE, traits: ours | fixed | noTrailer},
		{name: "trailer", id: Trailer, traits: ours | fixed | noTrailer},
		{name: "transfer-encoding", id: TransferEncoding, traits: ours | fixed | noTrailer},
		{name: "upgrade", id: Upgrade, traits: ours | fixed | noTrailer},
		{name: "content-length", id: ContentLength, traits: ours | fixed | noTrailer},
		{name: "expect", id: Expect, traits: ours | fixed | noTrailer},
		{name: "http2-settings", id: HTTP2Settings, traits: ours | fixed | noTrailer},
		{name: "proxy-authorization", id: ProxyAuthorization, traits: ours | fixed | noTrailer},
		{name: "proxy-authenticate", id: ProxyAuthenticate, traits: ours | fixed | noTrailer},
		{name: "max-forwards", id: MaxForwards, traits: ours | fixed | noTrailer},
		{name: "via", id: Via, traits: ours | noTrailer},
		{name: "forwarded", id: Forwarded, traits: ours | noTrailer},
		{name: "x-forwarded-for", id: XForwardedFor, traits: ours | noTrailer},
		{name: "x-forwarded-host", id: XForwardedHost, traits: ours | noTrailer},
		{name: "x-forwarded-proto", id: XForwardedProto, traits: ours | noTrailer},
		{name: "x-forwarded", id: XForwarded, traits: ours | noTrailer},
		{name: "forwarded-for", id: XForwarded, traits: ours | noTrailer},
		{name: "x-real-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "x-client-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "x-cluster-client-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "x-remote-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "x-remote-addr", id: XForwarded, traits: ours | noTrailer},
		{name: "x-originating-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-url", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-uri", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-host", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-proto", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-for", id: XForwarded, traits: ours | noTrailer},
		{name: "x-original-forwarded-for", id: XForwarded, traits: ours | noTrailer},
		{name: "x-rewrite-url", id: XForwarded, traits: ours | noTrailer},
		{name: "true-client-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "client-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "cf-connecting-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "fastly-client-ip", id: XForwarded, traits: ours | noTrailer},
		{name: "proxy", id: HTTPProxy, traits: ours | noTrailer},
		{name: "proxy-status", id: ProxyStatus, traits: noTrailer},
		{name: "origin", id: Origin, traits: noTrailer},
		{name: "sec-fetch-site", id: SecFetchSite, traits: noTrailer},
		{name: "access-control-request-method", id: AccessControlRequestMethod, traits: noTrailer},
		{name: "authorization", id: Authorization, traits: noTrailer},
		{name: "www-authenticate", id: WWWAuthenticate, traits: noTrailer},
		{name: "content-type", id: ContentType, traits: noTrailer},
		{name: "date", id: Date, traits: noTrailer},
		{name: "server", id: Server},
		{name: "location", id: Location, traits: noTrailer},
		{name: "content-location", id: ContentLocation, traits: noTrailer},
		{name: "set-cookie", id: SetCookie, traits: noTrailer},
		{name: "retry-after", id: RetryAfter, traits: noTrailer},
		{name: "idempotency-key", id: IdempotencyKey, traits: noTrailer},
		// Names that are frequent, and spared the look for their family.
		{name: "accept"},
		{name: "accept-encoding"},
		{name: "accept-language"},
		{name: "user-agent"},
		{name: "referer"},
		{name: "etag"},
		{name: "last-modified"},
		{name: "traceparent"},
		{name: "x-request-id"},
		{name: "x-correlation-id"},
		{name: "tracestate"},
		{name: "accept-ranges"},
		{name: "content-disposition"},
		{name: "strict-transport-security"},
		{name: "x-content-type-options"},
		{name: "x-frame-options"},
		{name: "content-security-policy"},
		{name: "access-control-allow-origin"},
		{name: "x-amz-date"},
		// Names that matter in trailer sections only.
		{name: "age", traits: noTrailer},
		{name: "authentication-info", traits: noTrailer},
		{name: "cache-control", traits: noTrailer},
		{name: "content-encoding", traits: noTrailer},
		{name: "content-range", traits: noTrailer},
		{name: "cookie", traits: noTrailer},
		{name: "expires", traits: noTrailer},
		{name: "if-match", traits: noTrailer},
		{name: "if-modified-since", traits: noTrailer},
		{name: "if-none-match", traits: noTrailer},
		{name: "if-range", traits: noTrailer},
		{name: "if-unmodified-since", traits: noTrailer},
		{name: "pragma", traits: noTrailer},
		{name: "proxy-authentication-info", traits: noTrailer},
		{name: "range", traits: noTrailer},
		{name: "vary", traits: noTrailer},
		{name: "warning", traits: noTrailer},
	}
	for i, k := range all {
		h := hash([]byte(k.name))
		k.usual, k.next, heads[h] = capitals(k.name), heads[h], uint8(i+1)
		names[i+1] = k
	}
	return names, heads
}()

// capitals begins each part of a name with one.
func capitals(name string) string {
	b := []byte(name)
	for i, c := range b {
		if (i == 0 || b[i-1] == '-') && 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// hash is over length, first, middle and last byte, in the folded form that lookup compares.
func hash(name []byte) uint8 {
	n := len(name)
	return uint8(n*7) + fold[name[0]]*3 + fold[name[n/2]]*5 + fold[name[n-1]]*11
}

// Identify tells which field name is, whatever its case.
func Identify(name []byte) ID {
	id, _ := lookup(name)
	return id
}

func lookup(name []byte) (ID, trait) {
	if len(name) == 0 {
		return Other, 0
	}
	for i := heads[hash(name)]; i != 0; i = known[i].next {
		k := &known[i]
		if string(name) == k.usual || string(name) == k.name {
			return k.id, k.traits
		}
		if len(k.name) == len(name) && foldedPrefix(name, k.name) {
			switch {
			case !respelt(name):
				return k.id, k.traits
			case k.traits&ours != 0:
				return Underscored, k.traits
			}
			return Other, 0
		}
	}
	if id := family(name); id != Other {
		if respelt(name) {
			return Underscored, ours | noTrailer
		}
		return id, ours | noTrailer
	}
	return Other, 0
}

// Every proxy and every server has names of its own for what a proxy says of the certificate or of the address of its client, and
// servers believe them. So it is not names that are known, but what they are made of, marks left out.
var (
	// certNouns with one of certWords make a name one of these, as in WL-Proxy-Client-Cert, Cf-Cert-Subject-DN or SSLClientCert.
	certNouns = parts("cert", "x509")
	certWords = parts("client", "ssl", "tls", "peer", "proxy", "subject", "issuer", "forwarded", "verif")
	// certParts make any name one of these.
	certParts = parts("sslclient", "tlsclient", "clientverify", "clientsdn", "clientidn", "sslverify", "tlsverify", "forwardedtls", "forwardedssl")
	// certEnds make a name one of these that ends in them. X-Client-Sandbox is none.
	certEnds = parts("clientdn", "clientcn", "clientsan")
	// mutual makes a name one of these where a part begins with it. X-Stream-TLS-Version is none.
	mutual = parts("mtls")
	// addressParts make a name one of XForwarded.
	addressParts = parts("clientip", "realip", "remoteip", "userip", "socketip", "connectingip", "originatingip", "remoteaddr", "clientaddr",
		"externaladdr", "forwardedfor", "sourceip", "sourceaddr", "peerip", "peeraddr")
)

// part is what a name can be made of.
type part struct {
	text    string
	letters letters
}

func parts(texts ...string) (all []part) {
	for _, t := range texts {
		p := part{text: t}
		for i := range len(t) {
			p.letters.add(t[i])
		}
		all = append(all, p)
	}
	return all
}

// letters is the set of letters of a name. Where a part has one that the name lacks, the part is not in it, which settles most cases.
type letters uint32

func (l *letters) add(c byte) {
	if 'a' <= c && c <= 'z' {
		*l |= 1 << (c - 'a')
	}
}

// squashed is a name in lower case, its marks left out.
type squashed struct {
	text    []byte
	letters letters
}

func (s *squashed) contains(all []part) bool {
	for i := range all {
		if p := &all[i]; s.letters&p.letters == p.letters && bytes.Contains(s.text, []byte(p.text)) {
			return true
		}
	}
	return false
}

func (s *squashed) endsIn(all []part) bool {
	for i := range all {
		if p := &all[i]; s.letters&p.letters == p.letters && bytes.HasSuffix(s.text, []byte(p.text)) {
			return true
		}
	}
	return false
}

// isCert reports whether the name says something of a certificate.
func (s *squashed) isCert() bool {
	if s.contains(certNouns) &&
		(s.contains(certWords) || bytes.HasPrefix(s.text, []byte("cf")) || bytes.HasPrefix(s.text, []byte("xcf"))) {
		return true
	}
	return s.contains(certParts) || s.endsIn(certEnds) || bytes.HasPrefix(s.text, []byte("xssl"))
}

// maxFamilyName is the length of the longest name that is looked at, marks left out. Names in use are shorter.
const maxFamilyName = 64

// family tells ClientCert, XForwarded and Other apart, by what a name is made of.
func family(name []byte) ID {
	if name[0] == '$' { // WebSphere's private fields: $WSCC is a certificate, $WSRA an address
		return ClientCert
	}
	var buf [maxFamilyName]byte
	s := squashed{text: buf[:0]}
	for _, c := range name {
		if c = fold[c]; c == '-' || len(s.text) == len(buf) {
			continue
		}
		s.letters.add(c)
		s.text = append(s.text, c)
	}
	switch {
	case s.isCert(), s.contains(mutual) && hasWord(name, "mtls"):
		return ClientCert
	case bytes.HasPrefix(s.text, []byte("xforwarded")), s.contains(addressParts):
		return XForwarded
	}
	return Other
}

// hasWord reports whether a part of name, or all but the first letter of one, as in XMTLSClient, begins with word, whatever its case.
func hasWord(name []byte, word string) bool {
	for i := range len(name) - len(word) + 1 {
		if foldedPrefix(name[i:], word) && (i <= 1 || fold[name[i-1]] == '-' || fold[name[i-2]] == '-') {
			return true
		}
	}
	return false
}

// Folded is a name as Alike wants it: in lower case, and with a hyphen for every mark.
func Folded(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = fold[c]
	}
	return string(b)
}

// Alike reports whether a server could take name for another, which is Folded: whatever its case, and with any mark for a hyphen, which
// is how CGI and its heirs read names.
func Alike(name []byte, other string) bool {
	return len(name) == len(other) && foldedPrefix(name, other)
}

// lengthBit tells apart names that cannot be the same: those of another length have another bit, up to 63 bytes.
func lengthBit[T ~string | ~[]byte](name T) uint64 { return 1 << min(len(name), 63) }

// foldedPrefix reports whether name begins with the lower-case prefix when case does not count
// and every mark stands for a hyphen, which is how CGI and its heirs read names.
func foldedPrefix(name []byte, prefix string) bool {
	for i := range len(prefix) {
		if fold[name[i]] != prefix[i] {
			return false
		}
	}
	return true
}

// respelt reports whether name holds a mark other than the hyphen.
func respelt(name []byte) bool {
	for _, c := range name {
		if c != '-' && fold[c] == '-' {
			return true
		}
	}
	return false
}

// equalFold compares in ASCII; lower is in lower case.
func equalFold[T ~string | ~[]byte](s []byte, lower T) bool {
	if len(s) != len(lower) {
		return false
	}
	for i, c := range s {
		if toLower[c] != lower[i] {
			return false
		}
	}
	return true
}

func upperToLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

var toLower = func() (t [256]byte) {
	for i := range t {
		t[i] = upperToLower(byte(i))
	}
	return t
}()

// fold is toLower with every mark of a token made a hyphen.
var fold = func() (t [256]byte) {
	for i := range t {
		t[i] = upperToLower(byte(i))
		if class[i]&tokenByte != 0 && class[i]&alnumByte == 0 {
			t[i] = '-'
		}
	}
	return t
}()
