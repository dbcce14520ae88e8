package archtest

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// rule is a line `package -> packages` of the page.
type rule struct {
	layer   int
	imports []string
}

func rules(t *testing.T) map[string]rule {
	t.Helper()
	all, layer := make(map[string]rule), 0
	for _, line := range fenced(t, "imports") {
		if strings.HasPrefix(line, "#") {
			layer++
			continue
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		from, to, ok := strings.Cut(line, "->")
		from = strings.TrimSpace(from)
		if _, twice := all[from]; !ok || twice {
			t.Fatalf("line %q of the page is no rule, or the second for its package", line)
		}
		all[from] = rule{layer, strings.Fields(to)}
	}
	return all
}

func TestImportsAreThoseOnThePage(t *testing.T) {
	imported := make(map[string]map[string]bool)
	for _, s := range program(t) {
		if imported[s.pkg()] == nil {
			imported[s.pkg()] = make(map[string]bool)
		}
		for _, path := range s.imports() {
			if of, ok := strings.CutPrefix(path, module+"/"); ok {
				imported[s.pkg()][strings.TrimPrefix(of, "internal/")] = true
			}
		}
	}
	page := rules(t)
	for _, pkg := range slices.Sorted(maps.Keys(imported)) {
		r, ok := page[pkg]
		if !ok {
			t.Errorf("%s is not on the page: decide what it owns and may import, and add it (it imports %v)", pkg, slices.Sorted(maps.Keys(imported[pkg])))
			continue
		}
		for _, of := range slices.Sorted(maps.Keys(imported[pkg])) {
			if !slices.Contains(r.imports, of) {
				t.Errorf("%s imports %s, which the page does not allow", pkg, of)
			}
		}
		for _, of := range r.imports {
			if !imported[pkg][of] {
				t.Errorf("the page lets %s import %s, which it does not", pkg, of)
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(page)) {
		if imported[pkg] == nil {
			t.Errorf("%s is on the page and not in the source", pkg)
		}
	}
}

func TestThePageLetsPackagesImportFromLowerLayersOnly(t *testing.T) {
	page := rules(t)
	for _, pkg := range slices.Sorted(maps.Keys(page)) {
		for _, of := range page[pkg].imports {
			lower, ok := page[of]
			if !ok {
				t.Errorf("the page lets %s import %s, which has no line", pkg, of)
			} else if lower.layer >= page[pkg].layer {
				t.Errorf("the page lets %s, of layer %d, import %s, of layer %d", pkg, page[pkg].layer, of, lower.layer)
			}
		}
	}
}

// homes reads the page's table of modules: module -> packages that may import it.
func homes(t *testing.T) map[string][]string {
	t.Helper()
	lines := page(t)
	start := slices.Index(lines, "| module | home | what it saves us |")
	if start < 0 {
		t.Fatal("docs/architecture.md has no table of modules")
	}
	all := make(map[string][]string)
	for _, line := range lines[start+2:] {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			break
		}
		module := strings.Trim(cells[1], " `")
		for _, home := range strings.Split(cells[2], ",") {
			all[module] = append(all[module], strings.Trim(home, " `"))
		}
		if strings.TrimSpace(cells[3]) == "" {
			t.Errorf("the page gives no reason for %s", module)
		}
	}
	return all
}

func TestModulesOfOthersStayAtHome(t *testing.T) {
	page := homes(t)
	used := make(map[string][]string)
	for _, s := range sources(t) {
		for _, path := range s.imports() {
			first, _, _ := strings.Cut(path, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(path, module+"/") {
				continue
			}
			owner := ""
			for m := range page {
				if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(owner) {
					owner = m
				}
			}
			if owner == "" {
				t.Errorf("%s imports %s, which has no home on the page", s.path, path)
				continue
			}
			home := s.pkg()
			if slices.Contains(page[owner], "tests") {
				home = "tests"
				if !s.test() {
					t.Errorf("%s imports %s, which is for tests", s.path, path)
				}
			} else if !slices.Contains(page[owner], home) {
				t.Errorf("%s imports %s, whose home is %v", s.path, path, page[owner])
			}
			if !s.test() || home == "tests" {
				used[owner] = append(used[owner], home)
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(page)) {
		for _, home := range page[m] {
			if !slices.Contains(used[m], home) {
				t.Errorf("the page names %s as a home of %s, which it does not import", home, m)
			}
		}
	}
}

// rare are packages of the standard library with the few places, if any, that
// have a reason to import them.
var rare = map[string]struct {
	homes []string
	why   string
}{
	"log":               {[]string{"admin", "demo"}, "records go through logging; http.Server alone wants this type for its own"},
	"log/slog":          {nil, "records go through logging"},
	"net/http/httputil": {[]string{"cli"}, "exchanges go through http1, conn and upstream; the demo shows one"},
	"os/exec":           {[]string{"systemd"}, "check asks systemctl about the installed units, and repeats itself as their user; the service starts no program"},
	"text/template":     {nil, "it calls methods by name, so the linker keeps all there are"},
	"html/template":     {nil, "it calls methods by name, so the linker keeps all there are"},
	"plugin":            {nil, "the program loads no code"},
	"math/rand":         {nil, "math/rand/v2 for choices, crypto/rand for what must not be guessed"},
	"testing":           {nil, "it belongs to tests"},
	"net/http/httptest": {nil, "it belongs to tests"},
}

func TestRareImportsStayRare(t *testing.T) {
	for _, s := range program(t) {
		for _, path := range s.imports() {
			if r, ok := rare[path]; ok && !slices.Contains(r.homes, s.pkg()) {
				t.Errorf("%s imports %s: %s", s.path, path, r.why)
			}
		}
	}
}
