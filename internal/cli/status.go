package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mtls-proxy/mtls-proxy/internal/admin"
	"github.com/mtls-proxy/mtls-proxy/internal/service"
)

// controlFlags say how to reach the running service. The configuration is
// never asked: it may be what is broken.
type controlFlags struct {
	socket  string
	timeout time.Duration
}

func (f *controlFlags) register(flags *pflag.FlagSet, timeout time.Duration) {
	flags.StringVar(&f.socket, "socket", admin.DefaultSocket, "the control socket `PATH` of the running service")
	flags.DurationVar(&f.timeout, "timeout", timeout, "how long to wait for the answer")
}

// client returns a client with the context that bounds what it does.
func (f *controlFlags) client(ctx context.Context) (*admin.Client, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	return &admin.Client{Socket: f.socket}, ctx, cancel
}

func (p *program) statusCommand() *cobra.Command {
	var (
		control controlFlags
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what the running service is doing",
		Long: `status asks the running service through its control socket. It reads no
configuration and starts nothing.`,
		Example: `  mtls-proxy status
  mtls-proxy status --json | jq .upstreams`,
		Args: p.noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, ctx, cancel := control.client(cmd.Context())
			defer cancel()
			raw, err := client.Status(ctx)
			if err != nil {
				return controlError(&control, err)
			}
			if asJSON {
				var b bytes.Buffer
				if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
					return fmt.Errorf("read the service's answer: %w", err)
				}
				b.WriteByte('\n')
				_, err := p.out.Write(b.Bytes())
				return err
			}
			var st service.Status
			if err := json.Unmarshal(raw, &st); err != nil {
				return fmt.Errorf("read the service's answer: %w", err)
			}
			_, err = io.WriteString(p.out, statusText(&st))
			return err
		},
	}
	control.register(cmd.Flags(), 5*time.Second)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what /status says, unabridged")
	return cmd
}

// statusText is st for people: what needs attention first.
func statusText(st *service.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mtls-proxy %s, %s, generation %d, up %s, process %d\n", st.Version, st.State, st.Generation,
		time.Duration(st.UptimeSeconds)*time.Second, st.PID)
	fmt.Fprintf(&b, "%s from callers, %s in progress\n", count(st.Connections, "connection"), count(st.Exchanges, "request"))
	if st.QueueRefused > 0 {
		fmt.Fprintf(&b, "%s refused at once because the queue was too long\n", count(int(st.QueueRefused), "request"))
	}
	for _, w := range st.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	if st.LogRecordsDropped > 0 {
		fmt.Fprintf(&b, "warning: %s dropped because the log could not keep up\n", count(int(st.LogRecordsDropped), "log record"))
	}
	if last := st.LastReload; !last.OK() {
		fmt.Fprintf(&b, "last reload refused %s:\n\t%s\n", last.At.Format(time.DateTime), strings.ReplaceAll(last.Error, "\n", "\n\t"))
	} else {
		fmt.Fprintf(&b, "last reload %s\n", last.At.Format(time.DateTime))
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	section := func(title string, n int) {
		if n > 0 {
			fmt.Fprintf(table, "\n%s\n", title)
		}
	}
	section("listeners", len(st.Listeners))
	for _, l := range st.Listeners {
		from := ""
		if l.Inherited {
			from = "\tfrom systemd"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s%s\n", l.Name, strings.Join(l.Addresses, " "), count(l.Connections, "connection"), from)
	}
	section("routes", len(st.Routes))
	for _, r := range st.Routes {
		fmt.Fprintf(table, "  %s\tto %s\n", r.Name, r.Upstream)
	}
	section("upstreams", len(st.Upstreams))
	for _, u := range st.Upstreams {
		fmt.Fprintf(table, "  %s\t%s\t%d active, %d idle%s\n", u.Name, u.URL, u.ActiveConnections, u.IdleConnections, trouble(&u))
	}
	endpointSections(table, st)
	section("identities", len(st.Identities))
	for _, id := range st.Identities {
		fmt.Fprintf(table, "  %s\t%s\tserial %s\t%s\n", id.Name, id.Subject, id.Serial, expiry(id.NotAfter, id.DaysLeft))
	}
	section("limits", len(st.Limits))
	for _, l := range st.Limits {
		limit := "off"
		switch {
		case l.Limit > 0:
			limit = fmt.Sprintf("%.0f of %.0f", l.Used, l.Limit)
		case l.Used > 0:
			limit = fmt.Sprintf("%.0f", l.Used)
		}
		fmt.Fprintf(table, "  %s\t%s\n", l.Name, limit)
	}
	if s := st.Store; s != nil {
		section("store of the shared rate limit", 1)
		state := "answers"
		if s.Away {
			state = "is away: " + s.Error
		}
		fmt.Fprintf(table, "  %s\t%s, %s, %s judged without it\n", state, count(int(s.RoundTrips), "round trip"),
			count(int(s.Failures), "failure"), count(int(s.Missed), "request"))
	}
	section("admin", len(st.Admin))
	for _, address := range st.Admin {
		fmt.Fprintf(table, "  %s\n", address)
	}
	table.Flush()
	return b.String()
}

func expiry(notAfter time.Time, days int) string {
	date := notAfter.UTC().Format(time.DateOnly)
	switch {
	case days < 0:
		return "EXPIRED " + date
	case days == 0:
		return "expires today, " + date
	default:
		return fmt.Sprintf("expires %s, in %s", date, count(days, "day"))
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// trouble says what keeps requests from an upstream, or makes more of them.
func trouble(u *service.UpstreamStatus) (text string) {
	if b := &u.CircuitBreaker; b.State != "closed" {
		text = ", circuit breaker " + b.State + " since " + b.Since.Format(time.TimeOnly)
	}
	if r := &u.Retries; r.Made > 0 {
		text += fmt.Sprintf(", %d of %d retries in 10 s", r.Made, r.Budget)
	}
	return text
}
