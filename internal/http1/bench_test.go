package http1

import "testing"

const (
	typicalRequest = "GET /v1/accounts/4711/transactions?from=2026-01-01 HTTP/1.1\r\n" +
		"Host: 127.0.0.1:8080\r\n" +
		"User-Agent: python-requests/2.32.3\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Accept: application/json\r\n" +
		"Connection: keep-alive\r\n" +
		"Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0\r\n\r\n"
	typicalResponse = "HTTP/1.1 200 OK\r\n" +
		"Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n" +
		"Content-Type: application/json; charset=utf-8\r\n" +
		"Content-Length: 1024\r\n" +
		"Server: nginx\r\n" +
		"Cache-Control: private, max-age=0\r\n" +
		"ETag: \"5e8c2b7a-400\"\r\n" +
		"Vary: Accept-Encoding\r\n\r\n"
	chunkedBody = "400\r\n" + kibibyte + "\r\n400\r\n" + kibibyte + "\r\n0\r\n\r\n"
	sixteen     = "0123456789abcdef"
	quarter     = sixteen + sixteen + sixteen + sixteen + sixteen + sixteen + sixteen + sixteen +
		sixteen + sixteen + sixteen + sixteen + sixteen + sixteen + sixteen + sixteen
	kibibyte = quarter + quarter + quarter + quarter
)

var (
	benchRequestRewrite  = RequestRewrite{Host: "api.example", Via: "1.1 mtls-proxy", StripPrefix: "/v1", AddPrefix: "/v2"}
	benchResponseRewrite = ResponseRewrite{
		CallerMinor: 1, Via: "1.1 mtls-proxy", Host: []byte("127.0.0.1:8080"),
		Defaults: []Default{{"X-Content-Type-Options", "nosniff"}, {"X-Frame-Options", "DENY"}, {"Referrer-Policy", "no-referrer"}},
		Location: &LocationRewrite{Origins: []string{"https://api.example"}, Domains: []string{"api.example"}},
	}
)

// steps are the paths that every exchange takes, for the benchmarks and the count of allocations.
func steps(tb testing.TB) map[string]func() {
	request, response, chunks := []byte(typicalRequest), []byte(typicalResponse), []byte(chunkedBody)
	var q, q2 Request
	var p, p2 Response
	var d ChunkReader
	if _, err := q2.Parse(request, nil); err != nil {
		tb.Fatal(err)
	}
	if _, err := p2.Parse(response, false, nil); err != nil {
		tb.Fatal(err)
	}
	limits := &Limits{}
	out := make([]byte, 0, 4096)
	upgrade := []byte(lines("GET / HTTP/1.0", "Connection: close, x-a, Upgrade", "Upgrade: h2c, a, b", "X-A: 1", "Via: 1.1 z", "X-Forwarded-For: y", "X: \t"))
	add := benchRequestRewrite
	add.Forwarded, add.ForwardedElement, add.CallerAddress = ForwardedAdd, []byte("for=127.0.0.1"), "127.0.0.1"
	add.Edits = mustEdits(tb, map[string]string{"X-User": "1"}, nil, "Cookie")
	redirect := []byte(lines("HTTP/1.1 302 Found", "Location: https://api.example/v2", "Set-Cookie: a=b; Secure", "Keep-Alive: timeout=5", "Connection: x", "Content-Length: 0"))
	trailers := []byte("1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n")
	answer := Answer{Status: 503, ContentType: "text/plain", Body: sixteenBytes, Date: sixteenBytes}
	must := func(n int, err error) {
		if n == 0 || err != nil {
			tb.Fatal(n, err)
		}
	}
	return map[string]func(){
		"RequestParse": func() {
			q.Reset()
			must(q.Parse(request, limits))
		},
		"RequestAppend":  func() { out = q2.Append(out[:0], &benchRequestRewrite) },
		"ResponseParse":  func() { p.Reset(); must(p.Parse(response, false, limits)) },
		"ResponseAppend": func() { out = p2.Append(out[:0], &benchResponseRewrite) },
		"Chunked": func() {
			d.Reset()
			out = out[:0]
			for b := chunks; !d.Done(); {
				data, n, err := d.Next(b, limits)
				must(n, err)
				if b = b[n:]; len(data) > 0 {
					out = AppendChunkHeader(out, len(data))
					out = append(out, data...)
					out = append(out, "\r\n"...)
				}
			}
			out = AppendLastChunk(out, d.Trailers())
		},
		"unusual request": func() {
			q.Reset()
			must(q.Parse(upgrade, limits))
			out = q.Append(out[:0], &add)
		},
		"request in two pieces": func() {
			q.Reset()
			if n, err := q.Parse(request[:100], limits); n != 0 || err != nil {
				tb.Fatal(n, err)
			}
			must(q.Parse(request, limits))
		},
		"refused request": func() {
			q.Reset()
			if _, err := q.Parse(chunks, limits); err == nil {
				tb.Fatal("accepted")
			}
		},
		"redirect": func() {
			p.Reset()
			must(p.Parse(redirect, false, limits))
			out = p.Append(out[:0], &benchResponseRewrite)
		},
		"trailers": func() {
			d.Reset()
			_, n, err := d.Next(trailers, limits)
			must(n, err)
			must(len(trailers), nil)
			_, n, err = d.Next(trailers[n:], limits)
			must(n, err)
			out = AppendLastChunk(out[:0], q2.KeepTrailers(d.Trailers(), add.Edits))
		},
		"answer": func() { out = AppendAnswer(out[:0], &answer) },
	}
}

var sixteenBytes = []byte(sixteen)

func TestNothingAllocates(t *testing.T) {
	for name, step := range steps(t) {
		step() // capacities grow once
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func benchmark(b *testing.B, name string, size int) {
	step := steps(b)[name]
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		step()
	}
}

func BenchmarkRequestParse(b *testing.B)   { benchmark(b, "RequestParse", len(typicalRequest)) }
func BenchmarkRequestAppend(b *testing.B)  { benchmark(b, "RequestAppend", len(typicalRequest)) }
func BenchmarkResponseParse(b *testing.B)  { benchmark(b, "ResponseParse", len(typicalResponse)) }
func BenchmarkResponseAppend(b *testing.B) { benchmark(b, "ResponseAppend", len(typicalResponse)) }
func BenchmarkChunked(b *testing.B)        { benchmark(b, "Chunked", len(chunkedBody)) }
