package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mtls-proxy/mtls-proxy/internal/config"
	"github.com/mtls-proxy/mtls-proxy/internal/files"
	"github.com/mtls-proxy/mtls-proxy/internal/identity"
	"github.com/mtls-proxy/mtls-proxy/internal/metrics"
	"github.com/mtls-proxy/mtls-proxy/internal/snapshot"
	"github.com/mtls-proxy/mtls-proxy/internal/systemd"
	"github.com/mtls-proxy/mtls-proxy/internal/trust"
)

// Found is what Check loaded.
type Found struct {
	Identities []IdentityStatus
	Warnings   []string
}

// Check loads everything that cfg names, as a start would, finds files that
// others may write to, and judges cfg by the installed unit; unit is nil where none
// runs it. problems are what is wrong with cfg itself; the rest is judged all
// the same. It opens no port and no connection, and reports all it found to be
// wrong as one BadConfiguration.
func Check(ctx context.Context, cfg *config.Config, problems config.Problems, unit *systemd.Unit) (Found, error) {
	var (
		found Found
		errs  []error
	)
	if len(problems) == 0 { // beside problems, some of the warnings follow from them
		for _, p := range cfg.Warnings {
			found.Warnings = append(found.Warnings, p.String())
		}
	}
	if err := found.load(ctx, cfg, len(problems) == 0); err != nil {
		errs = append(errs, err)
	}
	if _, err := adminSettings(cfg); err != nil {
		errs = append(errs, err)
	}
	if unit != nil && !slices.ContainsFunc(problems, ofSockets) {
		errs = append(errs, found.beside(cfg, unit)...)
	}
	if len(problems) > 0 {
		errs = append(errs, problems)
	}
	if len(errs) > 0 {
		return found, BadConfiguration{located(cfg, errors.Join(errs...))}
	}
	return found, nil
}

// load loads what cfg names. Only a sound cfg can be built from.
func (f *Found) load(ctx context.Context, cfg *config.Config, sound bool) error {
	if !sound {
		identities, bundles, err := snapshot.Inspect(cfg)
		f.loaded(identities, bundles)
		return err
	}
	next, err := snapshot.Build(ctx, cfg, nil, metrics.New(metrics.Options{Faults: faults()}))
	if err != nil {
		return err
	}
	defer next.Retire(nil)
	f.loaded(next.Identities, next.Bundles)
	return nil
}

// ofSockets reports whether p may be why sockets are not where they should be.
func ofSockets(p config.Problem) bool {
	table, _, _ := strings.Cut(p.Key, ".")
	return table == "" || table == "listener" || table == "admin"
}

func (f *Found) loaded(identities []*identity.Identity, bundles []*trust.Bundle) {
	for _, id := range identities {
		f.Identities = append(f.Identities, identityStatus(id))
		for _, w := range id.Warnings {
			f.Warnings = append(f.Warnings, fmt.Sprintf("identity %q: %s", id.Name, w))
		}
	}
	f.Warnings = append(f.Warnings, expiring(identities, time.Now())...)
	for _, b := range bundles {
		for _, w := range b.Warnings {
			f.Warnings = append(f.Warnings, fmt.Sprintf("trust %q: %s", b.Name, w))
		}
	}
}

// located gives what err says about files the place in the configuration that
// names the file. Where that cannot be done for all of it, err stays as it is.
func located(cfg *config.Config, err error) error {
	var found config.Problems
	if !locate(cfg, err, &found) {
		return err
	}
	found.InOrder(cfg.Files)
	return once(found)
}

// once leaves out what was said before: several files may lead through the same
// folder. The problem with a place comes first, and stays.
func once(problems config.Problems) config.Problems {
	said := make(map[string]bool)
	return slices.DeleteFunc(problems, func(p config.Problem) bool {
		text := p.String()
		if said[text] {
			return true
		}
		said[text], said[config.Problem{Fact: p.Fact, Hint: p.Hint}.String()] = true, true
		return false
	})
}

func locate(cfg *config.Config, err error, found *config.Problems) bool {
	if p, is := err.(config.Problems); is { //nolint:errorlint // each layer is looked at in its turn
		*found = append(*found, p...)
		return true
	}
	if p, is := err.(*files.Problem); is { //nolint:errorlint // likewise
		key := keyOf(cfg, p.Path)
		fact := p.Path + ": " + p.Fact
		if p.Err != nil {
			fact += ": " + p.Err.Error()
		}
		*found = append(*found, config.Problem{Origin: cfg.Origin(key), Key: key, Fact: fact, Hint: p.Hint})
		return true
	}
	if several, is := err.(interface{ Unwrap() []error }); is {
		for _, e := range several.Unwrap() {
			if !locate(cfg, e, found) {
				*found = append(*found, config.Problem{Fact: e.Error()})
			}
		}
		return true
	}
	inner := errors.Unwrap(err)
	return inner != nil && locate(cfg, inner, found)
}

// keyOf is the key whose value is that file, "" when there is none.
func keyOf(cfg *config.Config, file string) string {
	for _, name := range sortedKeys(cfg.Identity) {
		switch file {
		case cfg.Identity[name].Certificate:
			return "identity." + name + ".certificate"
		case cfg.Identity[name].Key:
			return "identity." + name + ".key"
		}
	}
	for _, name := range sortedKeys(cfg.Trust) {
		if slices.Contains(cfg.Trust[name].CA, file) {
			return "trust." + name + ".ca"
		}
	}
	switch file {
	case "":
	case cfg.Admin.TLS.Certificate:
		return "admin.tls.certificate"
	case cfg.Admin.TLS.Key:
		return "admin.tls.key"
	case cfg.Admin.TLS.ClientCA:
		return "admin.tls.client_ca"
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
