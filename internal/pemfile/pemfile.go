// Package pemfile reads the PEM blocks of a file, and says what a file is that holds none.
package pemfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/mtls-proxy/mtls-proxy/internal/files"
)

// Block is one PEM block.
type Block struct {
	pem.Block
	Line int // of its BEGIN line, from 1
}

// Certificate is one block that is called a certificate.
type Certificate struct {
	Line    int
	Parsed  *x509.Certificate // nil where Err is set
	Subject string            // as far as it can be told, even where Parsed is nil
	Err     error             // why crypto/x509 does not take it
}

// String is "the certificate" with its Subject, if that can be told.
func (c *Certificate) String() string {
	if c.Subject == "" {
		return "the certificate"
	}
	return fmt.Sprintf("the certificate %q", c.Subject)
}

// Content is what a file holds, each kind in the order of the file.
type Content struct {
	Certificates []Certificate
	Keys         []Block // private keys, encrypted ones included
	Others       []Block
}

// Clear overwrites the private keys.
func (c *Content) Clear() {
	for i := range c.Keys {
		clear(c.Keys[i].Bytes)
	}
}

// Read returns what b holds, the content of the file called name; that file is
// not opened. Every block must be whole: nothing that begins like a block is
// passed over. Any other line is a comment, whatever is in it. The error is a
// *files.Problem.
func Read(name string, b []byte) (*Content, error) {
	content, problem := read(name, b)
	if problem != nil {
		problem.Path = name
		return nil, problem
	}
	return content, nil
}

// read is Read; the problem lacks its path.
func read(name string, b []byte) (*Content, *files.Problem) {
	if command, is := utf16Command(name, b); is {
		return nil, &files.Problem{Fact: "the file is text in UTF-16", Hint: "convert it: " + command}
	}
	var content Content
	found := false
	s := scanner{rest: b}
	if !bytes.Contains(b, []byte("\n")) {
		s.rest = bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
	}
	for {
		block, problem := s.next()
		switch {
		case problem != nil:
			return nil, problem
		case block == nil && !found:
			return nil, notPEM(name, b)
		case block == nil:
			return &content, nil
		}
		found = true
		if problem := content.add(name, block); problem != nil {
			return nil, problem
		}
	}
}

func (c *Content) add(name string, block *Block) *files.Problem {
	switch {
	case block.Type == "CERTIFICATE", block.Type == "X509 CERTIFICATE":
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil && isPKCS7(block.Bytes) { // some authorities call it so
			return pkcs7(name, "pem")
		}
		cert := Certificate{Line: block.Line, Parsed: parsed, Err: err}
		if err == nil {
			cert.Subject = parsed.Subject.String()
		} else {
			cert.Parsed = nil
			cert.describe(block.Bytes)
		}
		c.Certificates = append(c.Certificates, cert)
	case block.Type == "PKCS7", block.Type == "PKCS #7 SIGNED DATA", block.Type == "CMS":
		return pkcs7(name, "pem")
	case block.Type == "TRUSTED CERTIFICATE":
		return &files.Problem{
			Fact: fmt.Sprintf("line %d: this is a certificate in OpenSSL's own trust format", block.Line),
			Hint: "convert it: openssl x509 -in " + quote(name) + " -out " + quote(beside(name, ".crt")),
		}
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		c.Keys = append(c.Keys, *block)
	default:
		c.Others = append(c.Others, *block)
	}
	return nil
}

// Kinds lists the types of what is neither certificate nor key, or of keys.
func Kinds(blocks []Block) string {
	var all []string
	for _, b := range blocks {
		all = append(all, b.Type)
	}
	return strings.Join(all, ", ")
}

// scanner finds blocks, line by line.
type scanner struct {
	rest []byte
	line int // how many were taken
}

// take returns the next line without what ends it, and false at the end.
func (s *scanner) take() (line []byte, ok bool) {
	if len(s.rest) == 0 {
		return nil, false
	}
	line, s.rest, _ = bytes.Cut(s.rest, []byte("\n"))
	s.line++
	return bytes.TrimRight(line, " \t\r"), true
}

var (
	beginMark = []byte("-----BEGIN ")
	endMark   = []byte("-----END ")
	dashes    = []byte("-----")
	bom       = []byte("\xef\xbb\xbf")
)

// next returns the next block, or nil at the end.
func (s *scanner) next() (*Block, *files.Problem) {
	for {
		s.rest = bytes.TrimPrefix(s.rest, bom) // editors on Windows put it in front; files may have been joined
		text := s.rest
		line, ok := s.take()
		if !ok {
			return nil, nil
		}
		switch kind, what := mark(line); what {
		case begins:
			return s.block(kind, text)
		case ends:
			return nil, &files.Problem{
				Fact: fmt.Sprintf("line %d: the block %q ends here, but its BEGIN line is missing", s.line, kind),
				Hint: "check that the file was copied completely",
			}
		case damaged:
			return nil, s.notAlone()
		case comment:
		}
	}
}

func (s *scanner) notAlone() *files.Problem {
	return &files.Problem{
		Fact: fmt.Sprintf("line %d: a BEGIN or END line does not stand on a line of its own", s.line),
		Hint: "remove what stands before and behind it, blanks too; where files were joined, put a line break between them",
	}
}

// block reads on from behind the BEGIN line with which text starts.
func (s *scanner) block(kind string, text []byte) (*Block, *files.Problem) {
	begin := s.line
	for {
		line, ok := s.take()
		if !ok {
			return nil, &files.Problem{
				Fact: fmt.Sprintf("line %d: the block %q that begins here does not end", begin, kind),
				Hint: "check that the file was copied completely",
			}
		}
		end, what := mark(line)
		switch {
		case what == comment:
		case what == damaged:
			return nil, s.notAlone()
		case what != ends || end != kind:
			return nil, &files.Problem{
				Fact: fmt.Sprintf("line %d: the block %q that begins here has no END line before line %d", begin, kind, s.line),
				Hint: "check that the file was copied completely, and that each BEGIN and END line stands on a line of its own",
			}
		default:
			decoded, _ := pem.Decode(text[:len(text)-len(s.rest)])
			if decoded == nil {
				return nil, &files.Problem{
					Fact: fmt.Sprintf("line %d: the block %q that begins here holds something other than base64", begin, kind),
					Hint: "check that the file was copied completely and unchanged",
				}
			}
			return &Block{Block: *decoded, Line: begin}, nil
		}
	}
}

type lineKind uint8

const (
	comment lineKind = iota
	begins
	ends
	damaged // a mark that is not alone
)

// mark says what a line is; kind is that of a block. A mark begins its line,
// and nothing follows it. One that is only indented, or has text behind it, is
// more likely a mistake than a comment.
func mark(line []byte) (kind string, what lineKind) {
	bare := bytes.TrimLeft(line, " \t")
	rest, is := bytes.CutPrefix(bare, beginMark)
	what = begins
	if !is {
		if rest, is = bytes.CutPrefix(bare, endMark); !is {
			return "", comment
		}
		what = ends
	}
	name, closed := bytes.CutSuffix(rest, dashes)
	switch indented := len(bare) != len(line); {
	case closed && !indented && !bytes.Contains(name, dashes):
		return string(name), what
	case closed || !indented:
		return "", damaged
	}
	return "", comment
}
