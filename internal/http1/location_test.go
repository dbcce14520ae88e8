package http1

import (
	"fmt"
	"strings"
	"testing"
)

func TestLocationOfTheCallersOwnHost(t *testing.T) {
	l := &LocationRewrite{Origins: []string{"https://api.example", "http://api.example"}, OwnHost: true, StripPrefix: "/bank", AddPrefix: "/v2"}
	for value, want := range map[string]string{
		"https://localhost:8080/v2/x":    "http://localhost:8080/bank/x",
		"http://localhost:8080/v2/x?q":   "http://localhost:8080/bank/x?q",
		"HTTPS://LOCALHOST:8080":         "http://localhost:8080",
		"//localhost:8080/v2":            "http://localhost:8080/bank",
		"https://localhost:80801/v2":     "https://localhost:80801/v2",
		"https://localhost:8080.evil/v2": "https://localhost:8080.evil/v2",
		"https://localhost/v2":           "https://localhost/v2",
		"ftp://localhost:8080/v2":        "ftp://localhost:8080/v2",
		"https://x@localhost:8080/v2":    "https://x@localhost:8080/v2",
		"http://api.example/v2/x":        "http://localhost:8080/bank/x",
		"https://elsewhere.example/v2":   "https://elsewhere.example/v2",
		"https:localhost:8080/v2":        "https:localhost:8080/v2",
	} {
		t.Run(value, func(t *testing.T) {
			if got := string(l.appendLocation(nil, []byte(value), []byte("localhost:8080"))); got != want {
				t.Errorf("%q became %q, want %q", value, got, want)
			}
		})
	}
	if got := string((&LocationRewrite{}).appendLocation(nil, []byte("https://localhost:8080/"), []byte("localhost:8080"))); got != "https://localhost:8080/" {
		t.Errorf("an upstream that was not sent the caller's Host: %q", got)
	}
}

// As many fields as the bytes of a head have room for in practice, and few enough that they take no more memory than that.
func TestNumberOfFields(t *testing.T) {
	head := func(n int) []byte {
		return []byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("Set-Cookie: session=0123456789abcdef; Path=/\r\n", n) + "\r\n")
	}
	for _, tt := range []struct {
		fields, most int
		ok           bool
	}{
		{140, 0, true}, {1300, 0, true}, {1500, 0, false}, {1500, 1 << 20, true}, {20000, 1 << 20, true},
	} {
		t.Run(fmt.Sprint(tt.fields, tt.most), func(t *testing.T) {
			var r Response
			n, err := r.Parse(head(tt.fields), false, &Limits{MaxHead: tt.most})
			if (err == nil) != tt.ok || tt.ok && (n == 0 || len(r.Fields) != tt.fields) {
				t.Errorf("Parse = %d, %v with %d fields", n, err, len(r.Fields))
			}
		})
	}
	var r Request
	short := []byte("GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("a:\r\n", 3000) + "\r\n")
	if _, err := r.Parse(short, nil); err == nil {
		t.Error("3000 fields of two bytes were taken")
	}
}
