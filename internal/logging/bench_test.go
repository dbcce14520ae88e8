package logging

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// answered is a batch of usual records.
func answered() []record {
	batch := make([]record, batchSize)
	for i := range batch {
		batch[i] = record{
			time: time.Now(), level: hclog.Info, kind: exchangeFinished, requestID: "0123456789ab-0123456789ab", method: "GET", host: "127.0.0.1:8080",
			exchange: ExchangeRecord{Duration: 1234 * time.Microsecond, Generation: 1, Listener: "http", Route: "default", Upstream: "ledger",
				Status: 200, Caller: "127.0.0.1:54321", BytesIn: 512, BytesOut: 1024},
		}
	}
	return batch
}

// A record from the exchange to its line, but for the system call.
func BenchmarkExchange(b *testing.B) {
	l, err := New(Options{Format: "json", Stderr: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(time.Second)
	r := ExchangeRecord{
		Policy: &Policy{Access: AccessAll}, Time: time.Now(), Status: 200, Listener: "http", Route: "default", Upstream: "ledger",
		RequestID: []byte("0123456789ab-0123456789ab"), Method: []byte("GET"), Host: []byte("127.0.0.1:8080"), Caller: "127.0.0.1:54321",
	}
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		l.Exchange(&r)
		if i%batchSize == 0 {
			l.Flush(time.Minute) // as often as the writer writes under load
		}
	}
}

// What the writer pays for a record, without the system call.
func BenchmarkFormat(b *testing.B) {
	batch := answered()
	for name, format := range map[string]func([]byte, *record, bool) []byte{"text": appendText, "json": appendJSON} {
		b.Run(name, func(b *testing.B) {
			s := &lineSink{w: io.Discard, format: format}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batchSize == 0 {
					s.write(batch)
				}
			}
		})
	}
	b.Run("journal", func(b *testing.B) {
		var datagram []byte
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			datagram = appendDatagram(datagram[:0], &batch[i%batchSize])
		}
	})
}

// And with it: journald's place is taken by somebody who only reads.
func BenchmarkJournal(b *testing.B) {
	c, path := journald(b)
	l, err := newJournalSink(path, new(atomic.Bool))
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		in := make([]byte, 64<<10)
		for {
			if _, err := c.Read(in); err != nil {
				return
			}
		}
	}()
	defer c.Close()
	batch := answered()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batchSize == 0 {
			l.write(batch)
		}
	}
}
