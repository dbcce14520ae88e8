package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

func (p *program) reloadCommand() *cobra.Command {
	var control controlFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the running service read its configuration and certificates again",
		Long: `reload asks the running service to read everything again and returns once the
new generation serves. When something is wrong with it, the old one serves on,
the reasons go to stderr and the exit code is 1.

It reads no configuration itself and starts nothing.`,
		Example: `  mtls-proxy reload
  systemctl reload mtls-proxy`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, ctx, cancel := control.client(cmd.Context())
			defer cancel()
			res, err := client.Reload(ctx)
			if err != nil {
				return controlError(&control, err)
			}
			if !res.OK {
				return reloadRefused{res}
			}
			fmt.Fprintf(p.out, "generation %d serves\n", res.Generation)
			for _, change := range changesOf(ctx, client, res.Generation) {
				fmt.Fprintf(p.out, "  %s\n", change)
			}
			for _, w := range res.Warnings {
				fmt.Fprintf(p.err, "warning: %s\n", w)
			}
			return nil
		},
	}
	control.register(cmd.Flags(), time.Minute)
	return cmd
}

// changesOf asks what that generation changed. The answer is a courtesy: none
// comes when yet another reload was faster, or when it cannot be had.
func changesOf(ctx context.Context, client *admin.Client, generation uint64) []string {
	raw, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	var st service.Status
	if json.Unmarshal(raw, &st) != nil || st.LastReload.Generation != generation {
		return nil
	}
	if len(st.LastReload.Changes) == 0 {
		return []string{"nothing has changed"}
	}
	return st.LastReload.Changes
}

// reloadRefused is a reload that changed nothing, with every reason.
type reloadRefused struct{ res admin.ReloadResult }

func (r reloadRefused) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "reload refused, generation %d serves on", r.res.Generation)
	if len(r.res.Problems) == 0 {
		fmt.Fprintf(&b, ": %s", r.res.Error)
		return b.String()
	}
	for _, problem := range r.res.Problems {
		b.WriteByte('\n')
		b.WriteString(problem)
	}
	return b.String()
}

// controlError says what an error of the control socket means to the person
// who ran the command.
func controlError(f *controlFlags, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer through %s within %s", f.socket, f.timeout)
	}
	return err
}
