package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The manual page has every command and flag, and the control socket has one name.
func TestTheManualPageHasEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/mtls-proxy.8")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), `\-`, "-")
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if !strings.Contains(page, cmd.Name()) {
			t.Errorf("the page lacks the command %q", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(page, "--"+f.Name) {
				t.Errorf("the page lacks --%s of %q", f.Name, cmd.CommandPath())
			}
			if strings.Contains(f.Usage, "control socket") && f.Name != "socket" {
				t.Errorf("%q calls the control socket --%s", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(new(program).root())
}
