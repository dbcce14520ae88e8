//go:build !linux

package conn

import "errors"

// Lot is for Linux; elsewhere there is none.
type Lot struct{}

// NewLot says that there is none.
func NewLot() (*Lot, error) { return nil, errors.ErrUnsupported }

// Park is never called.
func (*Lot) Park(*Socket, func()) error { return errors.ErrUnsupported }

// Leave is never called.
func (*Lot) Leave(*Socket) {}

// Len is never called.
func (*Lot) Len() int { return 0 }

// Close is never called.
func (*Lot) Close() error { return nil }
