package memory

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// stat is a file with an inode.
type stat struct {
	os.FileInfo
	sys any
}

func (s stat) Sys() any { return s.sys }

func TestOnlyWhatNobodyWroteToIsLetGo(t *testing.T) {
	const smaps = `00001000-00002000 r-xp 00000000 fe:00 77    /usr/bin/program
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00002000-00003000 r--p 00001000 fe:00 77    /usr/bin/program (deleted)
Anonymous:             0 kB
00003000-00004000 r--p 00002000 fe:00 77    /usr/bin/program
Anonymous:             4 kB
00004000-00005000 rw-p 00003000 fe:00 77    /usr/bin/program
Anonymous:             0 kB
00005000-00006000 r--s 00003000 fe:00 77    /usr/bin/program
Anonymous:             0 kB
00006000-00007000 r--p 00000000 fe:00 78    /usr/lib/another
Anonymous:             0 kB
00007000-00008000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	got := clean(bufio.NewScanner(strings.NewReader(smaps)), stat{sys: &syscall.Stat_t{Ino: 77}})
	if want := []span{{0x1000, 0x2000}, {0x2000, 0x3000}}; !slices.Equal(got, want) {
		t.Errorf("clean() = %#x, want %#x", got, want)
	}
}

func TestTheProgramGoesOnWithoutItsPages(t *testing.T) {
	before := mapped(t)
	unmapProgram()
	if after := mapped(t); after >= before {
		t.Errorf("%d KiB of the program's file are mapped, %d before", after, before)
	}
}

// mapped is how many KiB of the program's text are mapped.
func mapped(t *testing.T) (kib int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		if field := strings.Fields(line); len(field) > 5 && strings.Contains(field[0], "-") {
			ours = field[5] == exe && field[1] == "r-xp"
		}
		var n int
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil && ours {
			kib += n
		}
	}
	return kib
}
