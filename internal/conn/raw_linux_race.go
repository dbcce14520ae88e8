//go:build linux && race

package conn

// rawByDefault is off: the race detector does not see raw system calls hand bytes over.
const rawByDefault = false
