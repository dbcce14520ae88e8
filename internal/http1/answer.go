package http1

import (
	"strconv"
	"time"
)

// Answer is a whole response of our own.
type Answer struct {
	Status      int
	ContentType string // "": no field
	Fields      []Default
	Lines       []byte // further fields, complete lines as AppendField makes them
	Body        []byte
	Head        bool   // the request was HEAD: the length is told, Body is not sent
	Close       bool   // the connection is closed behind it
	KeepAlive10 bool   // as in ResponseRewrite
	Date        []byte // the value of Date; nil: none
}

// AppendAnswer writes a. Answers with status 1xx, 204 and 304 have neither a body nor its length.
func AppendAnswer(dst []byte, a *Answer) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(a.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, Reason(a.Status)...)
	dst = append(dst, "\r\n"...)
	if a.Date != nil {
		dst = AppendField(dst, "Date", a.Date)
	}
	for i := range a.Fields {
		dst = AppendField(dst, a.Fields[i].Name, a.Fields[i].Value)
	}
	dst = append(dst, a.Lines...)
	switch {
	case a.Status < 200:
	case a.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case a.KeepAlive10:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	if a.Status < 200 || a.Status == 204 || a.Status == 304 {
		return append(dst, "\r\n"...)
	}
	if a.ContentType != "" {
		dst = AppendField(dst, "Content-Type", a.ContentType)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(a.Body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	if a.Head {
		return dst
	}
	return append(dst, a.Body...)
}

// AppendField writes one field line. It checks nothing: value comes from us, not off the wire.
func AppendField[T ~string | ~[]byte](dst []byte, name string, value T) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// AppendDate writes t as the value of Date, RFC 9110 section 5.6.7.
func AppendDate(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 GMT")
}

// Reason is the registered phrase of a status that a proxy may have to answer with, or "".
func Reason(status int) string {
	switch status {
	case 100:
		return "Continue"
	case 101:
		return "Switching Protocols"
	case 103:
		return "Early Hints"
	case 200:
		return "OK"
	case 204:
		return "No Content"
	case 304:
		return "Not Modified"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 411:
		return "Length Required"
	case 413:
		return "Content Too Large"
	case 414:
		return "URI Too Long"
	case 417:
		return "Expectation Failed"
	case 421:
		return "Misdirected Request"
	case 426:
		return "Upgrade Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	case 508:
		return "Loop Detected"
	}
	return ""
}
