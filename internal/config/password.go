package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxPassword is far beyond any password.
const maxPassword = 4 << 10

// ProxyPassword reads the password for the proxy of the named upstream; it is
// empty when there is no file. The error is Problems at the place of the key:
// the file cannot be read, holds no password, or is one that others may read or
// change.
func (c *Config) ProxyPassword(upstream string) (string, error) {
	return c.password(c.Upstream[upstream].ProxyPasswordFile, "upstream", upstream, "proxy_password_file")
}

// SharedPassword is ProxyPassword for the store of the shared rate limit.
func (c *Config) SharedPassword() (string, error) {
	return c.password(c.RateLimit.SharedPasswordFile, "rate_limit", "shared_password_file")
}

func (c *Config) password(file string, key ...string) (string, error) {
	if file == "" {
		return "", nil
	}
	problem := func(fact, hint string) Problem {
		return Problem{Origin: c.Origin(plain(key)), Key: dotted(key), Fact: fact, Hint: hint}
	}
	var problems Problems
	for _, p := range CheckFiles(file) {
		problems = append(problems, problem(p.Origin.File+": "+p.Fact, p.Hint))
	}
	content, mode, err := contentOfSecret(file)
	password := strings.TrimSuffix(strings.TrimSuffix(content, "\n"), "\r")
	var onPath *fs.PathError
	switch {
	case errors.As(err, &onPath):
		problems = append(problems, problem(file+" cannot be read: "+onPath.Err.Error(), ""))
	case err != nil:
		problems = append(problems, problem(file+" cannot be read: "+err.Error(), ""))
	case mode.Perm()&0o004 != 0:
		problems = append(problems, problem(fmt.Sprintf("everybody on this host may read the password in %s (mode %04o)", file, mode.Perm()), "chmod o-rwx "+file))
	case password == "":
		problems = append(problems, problem(file+" is empty", "write the password into it, on one line"))
	case strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		problems = append(problems, problem(file+" is more than one line of text", "write the password into it, on one line"))
	}
	if len(problems) > 0 {
		return "", problems
	}
	return password, nil
}

func contentOfSecret(file string) (string, fs.FileMode, error) {
	info, err := os.Stat(file) // a pipe would keep us waiting
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, errors.New("it is not a file")
	}
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err == nil && len(data) > maxPassword {
		err = fmt.Errorf("it is larger than %d KiB", maxPassword>>10)
	}
	return string(data), info.Mode(), err
}
