package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// block is a part of a page that a reader is meant to use as it stands.
type block struct {
	section string // the heading above it
	path    string // the file that it is; "" for commands
	text    string
}

// printPage prints the sections of a page that have blocks, a line each, or one section's blocks as a shell script.
func printPage(out io.Writer, file, section string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	blocks := markdown(string(text))
	if !strings.HasSuffix(file, ".md") {
		blocks = manual(string(text))
	}
	var names []string
	found := false
	for _, b := range blocks {
		if !slices.Contains(names, b.section) {
			names = append(names, b.section)
		}
		if b.section == section {
			found = true
			fmt.Fprint(out, b.script())
		}
	}
	switch {
	case section == "":
		for _, name := range names {
			fmt.Fprintln(out, name)
		}
	case !found:
		return fmt.Errorf("%s: section %q has nothing to run", file, section)
	}
	return nil
}

// script is the block as a shell would run it: commands as they are, and a file by writing it.
func (b block) script() string {
	if b.path == "" {
		return b.text
	}
	mode := "0644"
	if strings.HasPrefix(b.text, "#!") {
		mode = "0755"
	}
	return fmt.Sprintf("install -D -m %s /dev/stdin %s <<'END OF BLOCK'\n%sEND OF BLOCK\n", mode, b.path, b.text)
}

// names is the comment, in the first or second line, that says which file a block is.
var names = regexp.MustCompile(`\A(?:#!.*\n)?# (/\S+|[\w-]+\.toml)\n`)

// markdown finds commands, which are indented or fenced as sh, and files, which are fenced in any language and begin with
// a comment that is their path. Other fenced blocks are for reading.
func markdown(page string) (blocks []block) {
	var section, fence, indented string
	add := func(language, text string) {
		if m := names.FindStringSubmatch(text); m != nil {
			blocks = append(blocks, block{section, m[1], text})
		} else if language == "sh" {
			blocks = append(blocks, block{section, "", text})
		}
	}
	var language string
	inside := false
	for line := range strings.Lines(page) {
		if inside {
			if strings.HasPrefix(line, "```") {
				add(language, fence)
				inside, fence = false, ""
			} else {
				fence += line
			}
			continue
		}
		if code, ok := strings.CutPrefix(line, "    "); ok {
			indented += code
			continue
		}
		if strings.TrimSpace(line) == "" && indented != "" {
			continue
		}
		if indented != "" {
			add("sh", indented)
			indented = ""
		}
		if info, ok := strings.CutPrefix(line, "```"); ok {
			inside, language = true, strings.TrimSpace(info)
		} else if strings.HasPrefix(line, "#") {
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if indented != "" {
		add("sh", indented)
	}
	return blocks
}

// plain undoes the escapes of roff that commands need.
var plain = strings.NewReplacer(`\-`, "-", `\(dq`, `"`, `\(aq`, "'", `\e`, `\`)

// manual finds the examples of a man page, which stand between .EX and .EE.
func manual(page string) (blocks []block) {
	var section, text string
	inside := false
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, ".EX"):
			inside, text = true, ""
		case strings.HasPrefix(line, ".EE"):
			inside = false
			b := block{section: section, text: text}
			if m := names.FindStringSubmatch(text); m != nil {
				b.path = m[1]
			}
			blocks = append(blocks, b)
		case inside:
			text += plain.Replace(line)
		case strings.HasPrefix(line, ".SH "), strings.HasPrefix(line, ".SS "):
			section = strings.Trim(strings.TrimSpace(line[4:]), `"`)
		}
	}
	return blocks
}
