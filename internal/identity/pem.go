package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// maxFileBytes bounds what is read of a file; a chain takes a few KiB.
const maxFileBytes = 1 << 20

// readPair reads certificate and key. A renewal may replace both while we read:
// the certificate is read again after the key, and both again if it changed.
// Whether the two belong together is checked later. problems are files that others may write to, and
// keys that everybody may read.
func readPair(src Source) (cert, key []byte, problems []error, err error) {
	r := src.Files
	if r == nil {
		r = new(files.Reader)
	}
	read := func(name string) (*files.File, error) {
		f, err := r.Read(name, maxFileBytes)
		if err != nil {
			return nil, withHint(err)
		}
		for _, p := range f.Problems {
			problems = append(problems, p)
		}
		return f, nil
	}
	for range 3 {
		c, err := read(src.Certificate)
		if src.Key == src.Certificate && err != nil {
			return nil, nil, problems, err
		}
		k, errKey := read(src.Key)
		if err := errors.Join(err, errKey); err != nil {
			return nil, nil, problems, err
		}
		again, err := read(src.Certificate)
		if err != nil {
			return nil, nil, problems, err
		}
		if !bytes.Equal(c.Data, again.Data) {
			continue
		}
		clear(again.Data) // may hold the key as well
		if again.Public() && (src.Certificate == src.Key || bytes.Contains(c.Data, []byte("PRIVATE KEY-----"))) {
			problems = append(problems, publicKey(src.Certificate, again))
		}
		if k.Public() && src.Key != src.Certificate {
			problems = append(problems, publicKey(src.Key, k))
		}
		return c.Data, k.Data, problems, nil
	}
	return nil, nil, nil, &files.Problem{Path: src.Certificate, Fact: "the file changes while it is read", Hint: "try again when the renewal is done"}
}

func publicKey(name string, f *files.File) error {
	return &files.Problem{
		Path: name,
		Fact: fmt.Sprintf("everybody on this host may read the private key (mode %04o)", f.Mode.Perm()),
		Hint: "take that away: chmod o-rwx " + name,
	}
}

// withHint says what to do where files does not know it.
func withHint(err error) error {
	p, ok := errors.AsType[*files.Problem](err)
	if !ok {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Hint = "let the group that the service runs as read it, for example: chgrp mtls-proxy FILE && chmod 640 FILE"
	case errors.Is(err, fs.ErrNotExist):
		p.Hint = "put the file there, or correct the path"
	case p.Err == nil && p.Hint == "":
		p.Hint = "name a file that holds only the certificate chain or the key, in PEM form"
	}
	return p
}
