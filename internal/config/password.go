package config

import (
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
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
	var reader files.Reader
	f, err := reader.Read(file, maxPassword)
	if err != nil {
		p := unreadable(file, err)
		return "", Problems{problem(file+" "+p.Fact, "")}
	}
	for _, p := range f.Problems {
		problems = append(problems, problem(p.Path+": "+p.Fact, p.Hint))
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(f.Data), "\n"), "\r")
	clear(f.Data)
	switch {
	case f.Public():
		problems = append(problems, problem(fmt.Sprintf("everybody on this host may read the password in %s (mode %04o)", file, f.Mode.Perm()), "chmod o-rwx "+file))
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
