package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
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
	account, gids, err := u.account()
	if err != nil {
		return nil, err
	}
	cred := new(syscall.Credential)
	if cred.Uid, err = number(account.Uid); err != nil {
		return nil, err
	}
	if cred.Gid, err = number(account.Gid); err != nil {
		return nil, err
	}
	for _, gid := range gids {
		n, err := number(gid)
		if err != nil {
			return nil, err
		}
		cred.Groups = append(cred.Groups, n)
	}
	return cred, nil
}

// account returns the service's user and the numbers of all its groups.
func (u *Unit) account() (account *user.User, gids []string, err error) {
	if account, err = user.Lookup(u.User); err != nil {
		return nil, nil, err
	}
	if gids, err = account.GroupIds(); err != nil {
		return nil, nil, err
	}
	for _, name := range u.Groups {
		g, err := group(name)
		if err != nil {
			return nil, nil, err
		}
		gids = append(gids, g.Gid)
	}
	return account, gids, nil
}

// IsMember reports whether the service runs with that group, given by name or number. Where that cannot be looked up it is true.
func (u *Unit) IsMember(name string) bool {
	_, gids, err := u.account()
	if err != nil {
		return true
	}
	g, err := group(name)
	return err == nil && slices.Contains(gids, g.Gid) || slices.Contains(gids, name)
}

// group finds a group by its name or number.
func group(name string) (*user.Group, error) {
	if g, err := user.LookupGroup(name); err == nil {
		return g, nil
	}
	return user.LookupGroupId(name)
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	return uint32(n), err
}
