package logging

import (
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
)

// adapter turns what hclog is told into records.
type adapter struct{ log *Log }

func newLogger(l *Log, level hclog.Level) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: level, Output: io.Discard})
	logger.RegisterSink(&adapter{l})
	return logger
}

// Accept implements hclog.SinkAdapter. It gets records of every level.
func (a *adapter) Accept(name string, level hclog.Level, message string, args ...any) {
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	if !a.log.enabled(level) {
		return
	}
	r := record{time: time.Now(), level: level, kind: ordinary, message: tidy(message, maxFieldBytes)}
	if name != "" {
		r.fields = append(r.fields, text("part", name))
	}
	for len(args) > 0 {
		if len(args) == 1 { // a call that was written wrongly; the value is still worth seeing
			r.fields = append(r.fields, fieldOf("extra", args[0]))
			break
		}
		if e, ok := args[1].(Event); ok {
			r.event = e
		} else {
			key, ok := args[0].(string)
			if !ok {
				key = fmt.Sprint(args[0])
			}
			r.fields = append(r.fields, fieldOf(keyOf(key), args[1]))
		}
		args = args[2:]
	}
	a.log.queue.put(&r)
}

// keyOf spells err as records of exchanges do.
func keyOf(key string) string {
	if key == "err" {
		return "error"
	}
	return tidy(key, maxKeyBytes)
}

// fieldOf renders v at once: it may change after the call.
func fieldOf(key string, v any) field {
	switch v := v.(type) {
	case int:
		return number(key, int64(v))
	case int64:
		return number(key, v)
	case uint64:
		if v <= 1<<63-1 {
			return number(key, int64(v))
		}
	case string:
		return text(key, tidy(v, maxFieldBytes))
	case time.Time:
		return text(key, v.UTC().Format(time.RFC3339))
	case hclog.Format:
		if len(v) > 0 {
			return text(key, tidy(fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...), maxFieldBytes))
		}
	}
	return text(key, tidy(fmt.Sprintf("%v", v), maxFieldBytes))
}
