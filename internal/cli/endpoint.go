package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

func (p *program) endpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "endpoint",
		Short: "Take endpoints of an upstream out of use, and back",
		Long: `endpoint asks the running service, through its control socket, to send no more
requests to an endpoint, and to send it requests again. What is under way goes
on. An endpoint that was taken out stays out over reloads, and until the service
is restarted.`,
		Example: `  mtls-proxy endpoint list
  mtls-proxy endpoint drain bank 10.0.0.5:8443
  mtls-proxy endpoint resume bank 10.0.0.5:8443`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("endpoint takes one of drain, resume and list")
			}
			return usagef("endpoint takes one of drain, resume and list, got %q", args[0])
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args has refused by now
	}
	cmd.AddCommand(
		p.changeEndpointCommand(&cobra.Command{
			Use:   "drain UPSTREAM ADDRESS",
			Short: "Send an endpoint no more requests",
			Long: `drain takes an endpoint out of use. ADDRESS is as "endpoint list" shows it, or a
part of that: an IP address or a name, with its port or without; all endpoints
that have it are meant. Requests under way go on, and idle connections close in
their time.`,
			Example: `  mtls-proxy endpoint drain bank 10.0.0.5:8443
  mtls-proxy endpoint drain bank a.bank.example`,
		}, false),
		p.changeEndpointCommand(&cobra.Command{
			Use:   "resume UPSTREAM ADDRESS",
			Short: "Send an endpoint requests again",
			Long: `resume takes back a drain. The endpoint gets its whole share of the requests after
half a minute.`,
			Example: `  mtls-proxy endpoint resume bank 10.0.0.5:8443`,
		}, true),
		p.listEndpointsCommand(),
	)
	return cmd
}

// changeEndpointCommand gives cmd what drain and resume have in common.
func (p *program) changeEndpointCommand(cmd *cobra.Command, resume bool) *cobra.Command {
	var control controlFlags
	did, had := "drained", "was drained already"
	if resume {
		did, had = "resumed", "was not drained"
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usagef("%s takes the name of an upstream and an address, as in %s", cmd.Name(), strings.TrimSpace(strings.Split(cmd.Example, "\n")[0]))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, ctx, cancel := control.client(cmd.Context())
		defer cancel()
		res, err := client.ChangeEndpoint(ctx, admin.EndpointChange{Upstream: args[0], Address: args[1], Resume: resume})
		if err != nil {
			return controlError(&control, err)
		}
		if !res.OK {
			return errors.New(res.Error)
		}
		for _, address := range res.Changed {
			fmt.Fprintf(p.out, "%s %s\n", address, did)
		}
		for _, address := range res.Unchanged {
			fmt.Fprintf(p.out, "%s %s\n", address, had)
		}
		for _, w := range res.Warnings {
			fmt.Fprintf(p.err, "warning: %s\n", w)
		}
		return nil
	}
	control.register(cmd.Flags(), 5*time.Second)
	return cmd
}

func (p *program) listEndpointsCommand() *cobra.Command {
	var control controlFlags
	cmd := &cobra.Command{
		Use:   "list [UPSTREAM]",
		Short: "Show the endpoints of upstreams, and how they are",
		Example: `  mtls-proxy endpoint list
  mtls-proxy endpoint list bank`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("list takes the name of one upstream, got %q too", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, ctx, cancel := control.client(cmd.Context())
			defer cancel()
			raw, err := client.Status(ctx)
			if err != nil {
				return controlError(&control, err)
			}
			var st service.Status
			if err := json.Unmarshal(raw, &st); err != nil {
				return fmt.Errorf("read the service's answer: %w", err)
			}
			text, err := endpointList(&st, args)
			if err != nil {
				return err
			}
			_, err = io.WriteString(p.out, text)
			return err
		},
	}
	control.register(cmd.Flags(), 5*time.Second)
	return cmd
}

// endpointList is the endpoints of all upstreams, or of the one that is named.
func endpointList(st *service.Status, only []string) (string, error) {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	var names []string
	shown := false
	for _, u := range st.Upstreams {
		names = append(names, u.Name)
		if len(only) > 0 && u.Name != only[0] {
			continue
		}
		shown = true
		fmt.Fprintf(table, "%s\n", u.Name)
		if len(u.Endpoints) == 0 {
			fmt.Fprint(table, "  none: its names lead to no address\n")
		}
		writeEndpoints(table, &u)
	}
	if !shown && len(only) > 0 {
		return "", fmt.Errorf("there is no upstream %q; there are: %s", only[0], strings.Join(names, ", "))
	}
	table.Flush()
	return b.String(), nil
}

// endpointSections shows the endpoints of upstreams that have several, or one
// that is out.
func endpointSections(w io.Writer, st *service.Status) {
	for _, u := range st.Upstreams {
		if len(u.Endpoints) > 1 || slices.ContainsFunc(u.Endpoints, func(e service.EndpointStatus) bool { return e.State != "in" }) {
			fmt.Fprintf(w, "\nendpoints of %s\n", u.Name)
			writeEndpoints(w, &u)
		}
	}
}

// writeEndpoints writes a line for each, in columns apart by tabs.
func writeEndpoints(w io.Writer, u *service.UpstreamStatus) {
	for _, e := range u.Endpoints {
		state := e.State
		if e.Until != nil && state == "ejected" {
			state += " until " + e.Until.Format(time.TimeOnly)
		}
		notes := []string{count(e.Outstanding, "request"), fmt.Sprintf("%d idle", e.IdleConnections)}
		if e.Backup {
			notes = append(notes, "backup")
		}
		if e.Failures > 0 {
			notes = append(notes, count(e.Failures, "failure")+" in a row")
		}
		if c := e.HealthCheck; c != nil && !c.OK {
			notes = append(notes, "last check failed: "+cmp.Or(c.Error, "no reason was told"))
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", e.Address, state, strings.Join(notes, ", "))
	}
}
