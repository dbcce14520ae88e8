//go:build linux && !race

package conn

const rawByDefault = true
