package caller

import "strings"

// unitOf returns the unit that a cgroup belongs to, "" for none. The path is as in /proc/PID/cgroup: slices, then a
// unit, then whatever the unit makes of what is below. Who was delegated a cgroup writes names below it only, so that
// nobody but the system's manager makes a bare name.
func unitOf(path string) string {
	unit, below := next(path)
	uid, ok := strings.CutPrefix(unit, "user@")
	if !ok {
		return unit
	}
	if uid, ok = strings.CutSuffix(uid, ".service"); !ok || uid == "" || strings.Trim(uid, "0123456789") != "" {
		return unit
	}
	if own, _ := next(below); own != "" {
		return "user:" + uid + "/" + own
	}
	return unit
}

// next returns the first unit of path that is no slice, and what is below it.
func next(path string) (unit, below string) {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
		name = strings.TrimPrefix(name, "_") // before names that the kernel could take for its own
		kind := kindOf(name)
		switch kind {
		case "slice":
		case "service", "scope", "socket", "mount", "swap":
			return name, path
		default:
			return "", ""
		}
	}
	return "", ""
}

// kindOf returns what is behind the last dot of a unit's name; "": it is no name of a unit. systemd.unit(5).
func kindOf(name string) string {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(`:-_.\@`, c) >= 0) {
			return ""
		}
	}
	if i := strings.LastIndexByte(name, '.'); i > 0 && len(name) < 256 {
		return name[i+1:]
	}
	return ""
}
