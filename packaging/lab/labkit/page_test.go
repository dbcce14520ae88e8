package main

import (
	"slices"
	"testing"
)

func TestMarkdownHasCommandsAndFilesOfEachSection(t *testing.T) {
	page := "# Title\ntext\n\n    one\n    two\n\n    three\n\n## Files\n" +
		"```ini\n# /etc/x.conf\n[X]\n```\n```json\n{}\n```\n```sh\n#!/bin/sh\n# /bin/hook\ntrue\n```\n```sh\nfour\n```\n" +
		"- a list\n  that goes on\n\n## Last\n    five\n"
	want := []block{
		{"Title", "", "one\ntwo\nthree\n"},
		{"Files", "/etc/x.conf", "# /etc/x.conf\n[X]\n"},
		{"Files", "/bin/hook", "#!/bin/sh\n# /bin/hook\ntrue\n"},
		{"Files", "", "four\n"},
		{"Last", "", "five\n"},
	}
	if got := markdown(page); !slices.Equal(got, want) {
		t.Errorf("markdown() = %q\nwant %q", got, want)
	}
}

func TestManualHasTheExamplesOfEachSection(t *testing.T) {
	page := ".SH NAME\nx \\- y\n.SH UNDER SYSTEMD\n.RS\n.EX\nset \\-e\n.EE\n.RE\ntext\n.EX\n# /etc/x.conf\na = \\(dqb\\(dq\n.EE\n"
	want := []block{
		{"UNDER SYSTEMD", "", "set -e\n"},
		{"UNDER SYSTEMD", "/etc/x.conf", "# /etc/x.conf\na = \"b\"\n"},
	}
	if got := manual(page); !slices.Equal(got, want) {
		t.Errorf("manual() = %q\nwant %q", got, want)
	}
}

func TestFilesAreWrittenWithAMode(t *testing.T) {
	for text, want := range map[string]string{
		"# /etc/x\na\n":               "install -D -m 0644 /dev/stdin /etc/x <<'END OF BLOCK'\n# /etc/x\na\nEND OF BLOCK\n",
		"#!/bin/sh\n# /etc/x\ntrue\n": "install -D -m 0755 /dev/stdin /etc/x <<'END OF BLOCK'\n#!/bin/sh\n# /etc/x\ntrue\nEND OF BLOCK\n",
	} {
		if got := (block{path: "/etc/x", text: text}).script(); got != want {
			t.Errorf("script() = %q, want %q", got, want)
		}
	}
}
