// Package archtest holds the source to what docs/architecture.md says about it.
package archtest
