package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
)

// serviceExit is the exit code of a check that was made with the rights of the service's user, and has told its problems.
type serviceExit struct{ code int }

func (e serviceExit) Error() string { return "exit code " + strconv.Itoa(e.code) }

// asServiceUser repeats this very command with the rights of the user that the unit runs as, where we are root: what root can read, the
// service may not. False: it is for us to go on.
func (p *program) asServiceUser(ctx context.Context, unit *systemd.Unit) (done bool, err error) {
	if unit == nil || unit.User == "" || unit.User == "root" || os.Geteuid() != 0 {
		return false, nil
	}
	fmt.Fprintf(p.out, "judged with the rights of user %s, as which %s runs\n", unit.User, systemd.ServiceUnit)
	code, err := unit.Repeat(ctx, p.out, p.err)
	switch {
	case err != nil:
		return true, err
	case code != 0:
		return true, serviceExit{code}
	}
	return true, nil
}
