package memory

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// unmapProgram lets go of the pages of the program's own file that the process has mapped. Most of them were needed once, to
// start or to carry a rush, and as long as they are mapped the kernel takes them for ours and spares them. They stay in
// the page cache: one that is needed again comes back, with its neighbours, by a fault that reads nothing.
//
// Only what nobody has written to is let go, relocations and breakpoints included, so that nothing can be lost.
func unmapProgram() {
	exe, err := os.Stat("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for _, m := range clean(bufio.NewScanner(f), exe) {
		// Whatever it answers, the pages are as good as before.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.begin, m.end-m.begin, syscall.MADV_DONTNEED)
	}
}

// span is a range of addresses.
type span struct{ begin, end uintptr }

// clean returns the mappings of the file exe that are read-only and have no page of their own.
func clean(smaps *bufio.Scanner, exe os.FileInfo) (all []span) {
	stat, ok := exe.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	inode := strconv.FormatUint(stat.Ino, 10)
	var m span
	ours := false
	for smaps.Scan() {
		// 00401000-00e7b000 r-xp 00001000 fe:00 10011462    /usr/bin/mtls-proxy
		// Anonymous:             0 kB
		field := strings.Fields(smaps.Text())
		if len(field) < 2 {
			continue
		}
		if name, isKey := strings.CutSuffix(field[0], ":"); isKey {
			if ours && name == "Anonymous" && field[1] == "0" {
				all = append(all, m)
			}
			continue
		}
		ours = len(field) > 5 && field[4] == inode && (field[1] == "r-xp" || field[1] == "r--p") && m.parse(field[0])
	}
	return all
}

// parse reads the range from the text that the kernel writes it in.
func (m *span) parse(text string) bool {
	from, to, _ := strings.Cut(text, "-")
	begin, err := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	m.begin, m.end = uintptr(begin), uintptr(end)
	return err == nil && err2 == nil && begin < end
}
