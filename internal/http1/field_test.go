package http1

import (
	"strings"
	"testing"
)

// droppedOnTheWay reports whether a request's field of that name stays here, with forwarded = "strip".
func droppedOnTheWay(t *testing.T, name string) bool {
	t.Helper()
	r := parseRequest(t, "GET / HTTP/1.1\r\nHost: b\r\n"+name+": forged\r\n\r\n")
	return !strings.Contains(string(r.Append(nil, &RequestRewrite{Host: "b"})), "forged")
}

// spellings are what servers that map names to variables take for name.
func spellings(name string) (all []string) {
	for _, mark := range []string{"-", "_", ".", "", "~"} {
		s := strings.ReplaceAll(name, "-", mark)
		all = append(all, s, strings.ToUpper(s), strings.ToLower(s))
	}
	return append(all, strings.Replace(name, "-", "_", 1))
}

// Servers believe fields of many names. No spelling of a known name passes, nor does a new name that is made of the same parts.
func TestForgedFieldsDoNotPass(t *testing.T) {
	for _, name := range []string{
		"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-Client-Certificate", "X-Forwarded-Client-Cert", "X-SSL-Client-Cert", "X-SSL-Cert",
		"SSL-Client-Cert", "SSL-Client-Verify", "SSL-Client-S-DN", "SSLClientCert", "SSLClientCertSubject", "X-SSLClientCert", "X-SSLClientCertSerial",
		"WL-Proxy-Client-Cert", "Proxy-Client-Cert", "Cf-Cert-Subject-DN", "Cf-Cert-Issuer-DN", "Cf-Cert-Verified", "Cf-Client-Cert-Der-Base64",
		"ClientCert", "X-ClientCert", "X-Tls-ClientCert", "X-TLS-Client-Subject", "X-MTLS-Client", "X-MTLS-Subject", "MTLS-Verified", "X-Amzn-Mtls-Clientcert-Leaf", "X-ARR-ClientCert",
		"X-Client-DN", "X-Client-CN", "X-Client-SAN", "X-Client-Verify", "X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-Ssl-Client-Cert",
		"Peer-Certificate", "X-Peer-Cert", "X-Subject-Cert", "X-Cert-Issuer", "X-Client-X509", "X-Verified-Cert",
		"WL-Proxy-Client-IP", "Proxy-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "X-Azure-ClientIP", "X-Azure-SocketIP", "X-Real-IP",
		"True-Client-IP", "Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "Fastly-Client-IP", "X-Remote-IP", "X-Remote-Addr", "X-ProxyUser-Ip",
		"X-Appengine-User-Ip", "X-Envoy-External-Address", "Ali-CDN-Real-IP", "X-Originating-IP", "X-Forwarded-For", "X-Forwarded-Port",
		"X-Original-Forwarded-For", "Forwarded-For", "X-Source-IP", "X-Peer-Address",
	} {
		for _, s := range spellings(name) {
			if !droppedOnTheWay(t, s) {
				t.Errorf("%s passes", s)
			}
		}
	}
	for _, name := range []string{"X-Acme-Mtls-Auth", "X_Acme.MTLS_Auth", "$WSCC", "$WSCS", "$wsra", "$WSIS", "Proxy", "PROXY", "proxy", "Forwarded", "X_Original_URL"} {
		if !droppedOnTheWay(t, name) {
			t.Errorf("%s passes", name)
		}
	}
	for _, vendor := range []string{"", "X-", "WL-", "Acme-", "X-Acme-Proxy-", "Cf-"} {
		for _, whose := range []string{"Client-", "SSL-Client-", "TLS-", "Peer-", "Proxy-SSL-"} {
			for _, what := range []string{"Cert", "Certificate", "Cert-Subject-DN", "Certificate-Serial", "X509", "Cert-Chain-0"} {
				for _, s := range spellings(vendor + whose + what) {
					if !droppedOnTheWay(t, s) {
						t.Errorf("%s passes", s)
					}
				}
			}
		}
	}
}

// What programs send for other reasons passes.
func TestOrdinaryFieldsPass(t *testing.T) {
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Referer", "Cookie", "Authorization", "X-Request-Id", "X-Correlation-ID",
		"X-Client-Version", "X-Client-Id", "Client-Id", "X-Client-Name", "Traceparent", "Tracestate", "Baggage", "B3", "X-B3-TraceId", "X-Amz-Date",
		"X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Goog-Api-Key", "X-Api-Key", "X-Auth-Token", "X-Vault-Token", "PSU-IP-Address", "PSU-IP-Port",
		"PSU-User-Agent", "TPP-Signature-Certificate", "TPP-Redirect-URI", "Digest", "Signature", "Signature-Input", "X-JWS-Signature", "Consent-ID",
		"PAYPAL-CERT-URL", "X-Idempotency-Key", "Idempotency-Key", "X-Stripe-Client-User-Agent", "OpenAI-Organization", "X-GitHub-Api-Version",
		"X-Registry-Auth", "Docker-Content-Digest", "Range", "If-None-Match", "X-Shipping-Address", "X-Zip", "X-Ship-To", "Certificate-Id", "X-Tls-Version",
		"SOAPAction", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "X-HTTP-Method-Override", "X-Requested-With", "X-Proxy-Timeout", "DPoP",
		"Grpc-Timeout", "X-Description", "Prefer", "OData-Version", "X-Device-Ip-Hash", "SSL-Cipher", "X-IP-Country",
		"X-Client-Sandbox", "X-Client-Cnonce", "X-Client-DNS", "X-Stream-TLS-Version", "X-Platform-Tls", "X-Android-Cert", "X-Android-Package",
	} {
		if droppedOnTheWay(t, name) {
			t.Errorf("%s does not pass", name)
		}
	}
}

// Only we say what became of a request with us.
func TestProxyStatusOfOurName(t *testing.T) {
	for value, want := range map[string]string{
		`mtls-proxy; error=connection_refused; details="x"`: "",
		`MTLS-Proxy;error=x`:                                  "",
		`"mtls-proxy";error=x`:                                "",
		`cdn; error=http_response_timeout`:                    "Proxy-Status: cdn; error=http_response_timeout\r\n",
		`cdn;received-status=200, mtls-proxy;error=x , other`: "Proxy-Status: cdn;received-status=200, other\r\n",
		`cdn; details="a, mtls-proxy; error=x"`:               "Proxy-Status: cdn; details=\"a, mtls-proxy; error=x\"\r\n",
		`cdn; details="a\", mtls-proxy"`:                      "Proxy-Status: cdn; details=\"a\\\", mtls-proxy\"\r\n",
		`cdn; details="never closed, mtls-proxy`:              "",
		`(a, mtls-proxy b), x`:                                "Proxy-Status: (a, mtls-proxy b), x\r\n",
		`, ,mtls-proxy`:                                       "",
		`mtls-proxy2;error=x`:                                 "Proxy-Status: mtls-proxy2;error=x\r\n",
	} {
		r := parseResponse(t, false, "HTTP/1.1 502 B\r\nProxy-Status: "+value+"\r\nContent-Length: 0\r\n\r\n")
		out := string(r.Append(nil, &ResponseRewrite{CallerMinor: 1}))
		if want = "HTTP/1.1 502 B\r\n" + want + "Content-Length: 0\r\n\r\n"; out != want {
			t.Errorf("%q became %q, want %q", value, out, want)
		}
	}
}

// FuzzProxyStatus: whatever a list looks like, no reader finds a member of our name in what is left of it.
func FuzzProxyStatus(f *testing.F) {
	for _, s := range []string{`mtls-proxy`, `a, "mtls-proxy" ;b`, `a;b="\",mtls-proxy"`, `(mtls-proxy), mtls-proxy`, `a,`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		field := Field{Name: []byte("Proxy-Status"), Value: []byte(value)}
		out := string(field.appendOthers(nil, OwnName))
		if out == "" {
			return
		}
		list := strings.TrimSuffix(strings.TrimPrefix(out, "Proxy-Status: "), "\r\n")
		quoted, depth, begin := false, 0, 0
		for i := 0; i <= len(list); i++ {
			if i == len(list) || list[i] == ',' && !quoted && depth == 0 {
				name, _, _ := strings.Cut(list[begin:i], ";")
				if strings.EqualFold(strings.Trim(name, "\" \t"), OwnName) {
					t.Fatalf("%q became %q", value, out)
				}
				begin = i + 1
				continue
			}
			switch c := list[i]; {
			case c == '\\' && quoted:
				i++
			case c == '"':
				quoted = !quoted
			case c == '(' && !quoted:
				depth++
			case c == ')' && !quoted:
				depth--
			}
		}
	})
}

// A name that is not known costs a look at what it is made of.
func BenchmarkIdentify(b *testing.B) {
	for _, name := range []string{"Accept", "X-Correlation-ID", "X-Amz-Security-Token", "Sec-WebSocket-Protocol", "WL-Proxy-Client-Cert"} {
		b.Run(name, func(b *testing.B) {
			n := []byte(name)
			b.ReportAllocs()
			for b.Loop() {
				Identify(n)
			}
		})
	}
}
