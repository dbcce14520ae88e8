package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// hold sends a POST on one connection for each line that it reads, and says
// what comes back. It ends when the server hangs up, or with its input.
func hold(where string, in io.Reader, out io.Writer) error {
	u, err := url.Parse(where)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if _, err := io.WriteString(c, post(u)); err != nil {
				sent <- fmt.Errorf("send: %w", err)
				return
			}
		}
		sent <- lines.Err()
		_ = c.Close() // ends the reading below
	}()
	err = hear(c, out)
	if errors.Is(err, net.ErrClosed) {
		return <-sent
	}
	return err
}

// hear reads answers until the server closes the connection.
func hear(c net.Conn, out io.Writer) error {
	r := bufio.NewReader(c)
	for {
		if _, err := r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				fmt.Fprintln(out, "hung up")
				return nil
			}
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close() // it was read to the end
		switch {
		case err != nil:
			return err
		case res.StatusCode != http.StatusOK:
			return fmt.Errorf("answered %s", res.Status)
		case res.Close:
			fmt.Fprintln(out, "last answer")
		default:
			fmt.Fprintln(out, "answered")
		}
	}
}
