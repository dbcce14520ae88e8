package caller

import (
	"strings"
	"testing"
)

func TestUnitOfACgroup(t *testing.T) {
	for path, want := range map[string]string{
		"":                                 "",
		"/":                                "",
		"/init.scope":                      "init.scope",
		"/system.slice":                    "",
		"/system.slice/billing.service":    "billing.service",
		"/system.slice/a.slice/b.service":  "b.service",
		"/billing.slice/_cgroup.service":   "cgroup.service",
		"/system.slice/getty@tty1.service": "getty@tty1.service",
		`/system.slice/x\x2dy.service`:     `x\x2dy.service`,
		"/system.slice/system-serial\\x2dgetty.slice/a.socket":                                "a.socket",
		"/system.slice/docker.service/billing.service":                                        "docker.service",
		"/machine.slice/machine-web.scope/payload/system.slice/billing.service":               "machine-web.scope",
		"/user.slice/user-1000.slice/session-3.scope":                                         "session-3.scope",
		"/user.slice/user-1000.slice/user@1000.service":                                       "user@1000.service",
		"/user.slice/user-1000.slice/user@1000.service/init.scope":                            "user:1000/init.scope",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app.service":                 "user:1000/app.service",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app.service/billing.service": "user:1000/app.service",
		"/user.slice/user-1000.slice/user@1000.service/user@0.service/billing.service":        "user:1000/user@0.service",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/a b.service":                 "user@1000.service",
		"/user.slice/user-1000.slice/user@1000.service/app.slice":                             "user@1000.service",
		"/user.slice/user-1000.slice/user@x.service/app.service":                              "user@x.service",
		"/user@.service/app.service":                                                          "user@.service",
		"/docker/billing.service":                                                             "",
		"/.service":                                                                           "",
		"/system.slice/a\nb.service":                                                          "",
		"/" + strings.Repeat("a", 250) + ".service":                                           "",
	} {
		if got := unitOf(path); got != want {
			t.Errorf("unitOf(%q) = %q, want %q", path, got, want)
		}
	}
}
