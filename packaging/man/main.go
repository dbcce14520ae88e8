// Command man completes a manual page with what a page of the documents says, so that both have one source.
//
//	go run ./packaging/man packaging/man/mtls-proxy.toml.5 docs/configuration.md >mtls-proxy.toml.5
//
// The line "@FROM TO@" of the manual page gives way to the sections of the document from the heading FROM to the heading TO.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: man PAGE DOCUMENT")
	}
	page, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	document, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	text, err := complete(string(page), string(document))
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

// complete puts sections of the document in the place of the line in the page that names them.
func complete(page, document string) (string, error) {
	marks := regexp.MustCompile(`(?m)^@(\w+) (\w+)@\n`)
	found := marks.FindStringSubmatchIndex(page)
	if found == nil {
		return "", errors.New("the page has no line @FROM TO@")
	}
	sections, err := between(document, page[found[2]:found[3]], page[found[4]:found[5]])
	if err != nil {
		return "", err
	}
	return page[:found[0]] + roff(sections) + page[found[1]:], nil
}

// between returns the lines of the document from the section with the first heading to the end of that with the last.
func between(document, first, last string) ([]string, error) {
	lines := strings.Split(document, "\n")
	from, to := slices.Index(lines, "## "+first), slices.Index(lines, "## "+last)
	if from < 0 || to < from {
		return nil, fmt.Errorf("the document has no sections from %q to %q", first, last)
	}
	end := to + 1
	for end < len(lines) && !strings.HasPrefix(lines[end], "## ") {
		end++
	}
	return lines[from:end], nil
}

// roff writes Markdown, as far as our documents use it, in the macros of man(7).
func roff(lines []string) string {
	var b strings.Builder
	line := func(s string) {
		if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
			s = `\&` + s
		}
		b.WriteString(s + "\n")
	}
	for i := 0; i < len(lines); {
		text := lines[i]
		switch {
		case text == "":
			i++
		case strings.HasPrefix(text, "#"):
			b.WriteString(".SS " + inline(strings.TrimLeft(text, "# ")) + "\n")
			i++
		case strings.HasPrefix(text, "```"):
			b.WriteString(".PP\n.EX\n")
			for i++; i < len(lines) && !strings.HasPrefix(lines[i], "```"); i++ {
				line(escape(lines[i]))
			}
			b.WriteString(".EE\n")
			i++
		case strings.HasPrefix(text, "|"):
			n := i
			for n < len(lines) && strings.HasPrefix(lines[n], "|") {
				n++
			}
			for _, row := range lines[min(i+2, n):n] { // behind the names of the columns and the rule
				cells := cells(row)
				b.WriteString(".TP\n" + bold(cells[0]) + "\n")
				line(inline(entry(lines[i], cells[1:])))
			}
			i = n
		default:
			begin := ".PP\n"
			if item, ok := strings.CutPrefix(text, "* "); ok {
				begin, text = ".IP \\(bu 2\n", item
			}
			for i++; i < len(lines) && continues(lines[i]); i++ {
				text += " " + strings.TrimSpace(lines[i])
			}
			b.WriteString(begin)
			line(inline(text))
		}
	}
	return b.String()
}

// continues reports whether a line belongs to the paragraph before it.
func continues(line string) bool {
	return line != "" && !strings.HasPrefix(line, "* ") && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "```")
}

// entry is what the row of a table says of its first cell. Kind and default of a key stand before its meaning.
func entry(header string, rest []string) string {
	if cells(header)[0] == "Key" && len(rest) == 3 {
		if strings.Contains(rest[1], "required") {
			return rest[0] + ", " + rest[1] + ": " + rest[2]
		}
		return rest[0] + ", default " + rest[1] + ": " + rest[2]
	}
	return strings.Join(rest, "; ")
}

// cells splits the row of a table.
func cells(row string) []string {
	row = strings.ReplaceAll(row, `\|`, "\x00")
	list := strings.Split(strings.Trim(row, "|"), "|")
	for i, cell := range list {
		list[i] = strings.TrimSpace(strings.ReplaceAll(cell, "\x00", "|"))
	}
	return list
}

// bold is a line in bold type.
func bold(text string) string { return `\fB` + escape(strings.ReplaceAll(text, "`", "")) + `\fR` }

// inline turns code into bold type and leaves links their text alone.
func inline(text string) string {
	text = regexp.MustCompile(`\[([^\[\]]+)\]\([^)]*\)`).ReplaceAllString(text, "$1")
	parts := strings.Split(text, "`")
	for i, part := range parts {
		parts[i] = escape(part)
		if i%2 == 1 {
			parts[i] = `\fB` + parts[i] + `\fR`
		}
	}
	return strings.Join(parts, "")
}

// escape keeps backslashes and hyphens as they are.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
}
