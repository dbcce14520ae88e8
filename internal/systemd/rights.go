package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// Repeat runs this process's own command once more with the rights that u gives the service, its user and groups, and returns the exit code.
// Only root can do that.
func (u *Unit) Repeat(ctx context.Context, out, errs io.Writer) (code int, err error) {
	cred, err := u.credential()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...) //nolint:gosec // what we were called with
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok && failed.Exited() {
		return failed.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run as user %s: %w", u.User, err)
	}
	return 0, nil
}

// credential is what the service's processes have.
func (u *Unit) credential() (*syscall.Credential, error) {
	account, err := user.Lookup(u.User)
	if err != nil {
		return nil, err
	}
	names, err := account.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, name := range u.Groups {
		g, err := user.LookupGroup(name)
		if err != nil {
			if g, err = user.LookupGroupId(name); err != nil {
				return nil, err
			}
		}
		names = append(names, g.Gid)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return nil, err
		}
		cred.Groups = append(cred.Groups, uint32(id))
	}
	return cred, nil
}
