//go:build !linux

package conn

import "syscall"

func bindLate(string, string, syscall.RawConn) error { return nil }
