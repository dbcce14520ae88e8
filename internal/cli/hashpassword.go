package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
)

func (p *program) hashPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Turn a password into what [admin] users wants",
		Long: `hash-password asks for a password twice without showing it or, when stdin is no
terminal, takes the first line of it. It prints the bcrypt hash.`,
		Example: `  mtls-proxy hash-password
  pwgen 24 1 | tee password | mtls-proxy hash-password`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := p.readPassword(cmd.Context())
			if err != nil {
				return err
			}
			hash, err := admin.HashPassword(password)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.out, hash)
			return err
		},
	}
}

func (p *program) readPassword(ctx context.Context) ([]byte, error) {
	if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		first, err := p.prompt(ctx, f, "Password: ")
		if err != nil {
			return nil, err
		}
		second, err := p.prompt(ctx, f, "Once more: ")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(first, second) {
			return nil, errors.New("the two passwords differ")
		}
		return notEmpty(first)
	}
	line, err := bufio.NewReader(io.LimitReader(p.in, 4096)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	return notEmpty(bytes.TrimRight(line, "\r\n"))
}

// prompt asks on stderr, so that stdout carries the hash alone. When ctx ends
// it gives the terminal back as it was, and leaves the goroutine that reads
// behind: nothing can end it but the end of the process, which follows.
func (p *program) prompt(ctx context.Context, f *os.File, question string) ([]byte, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	fmt.Fprint(p.err, question)
	defer fmt.Fprintln(p.err)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		if l.err != nil {
			return nil, fmt.Errorf("read the password: %w", l.err)
		}
		return l.text, nil
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

func notEmpty(password []byte) ([]byte, error) {
	if len(password) == 0 {
		return nil, errors.New("the password is empty")
	}
	return password, nil
}
