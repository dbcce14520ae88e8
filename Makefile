# Every task of this project; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.SUFFIXES:

# Products are static. The race detector alone needs cgo, hence gcc.
export CGO_ENABLED := 0

VERSION ?= $(shell packaging/version)
FUZZTIME ?= 30s
BENCH ?= .
BENCH_COUNT ?= 10
SUITES ?= bookworm trixie sid
# auto: run where there is what they take (root on Linux; ::1), say so where there is not. required: fail there.
SYSTEMD_TESTS ?= auto
IPV6_TESTS ?= auto

# Tools with modest dependencies are pinned in internal/tools/go.mod; those with
# hundreds are installed by version, each version into a folder of its own.
tool := go tool -modfile=internal/tools/go.mod
nfpm_version := v2.45.1# later ones need a module that cannot be had
nfpm := $(CURDIR)/.bin/nfpm-$(nfpm_version)/nfpm
golangci_version := v2.15.0
golangci := $(CURDIR)/.bin/golangci-lint-$(golangci_version)/golangci-lint
need := internal/tools/need

scripts := packaging/version packaging/build packaging/repro packaging/list internal/tools/need .ci/run \
	packaging/deb/preinst packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm \
	$(addprefix packaging/lab/,lab lab-tests claims.sh service.sh deb.sh rpm.sh documents.sh guest/lab-script)
rpm_scripts := $(wildcard packaging/rpm/*.sh)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- the program ------------------------------------------------------------

build: ## Build dist/mtls-proxy
	@mkdir -p dist
	go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o dist/mtls-proxy ./cmd/mtls-proxy

demo: build ## See it work: throwaway CA, an upstream that demands a certificate, the proxy
	@exec dist/mtls-proxy demo

# ---- tests ------------------------------------------------------------------

test: lint test-unit test-race test-systemd ## Everything, installing what it needs (root, network)
	@echo 'make test: done'

test-unit: ## Unit and script tests
	@$(need) redis-server=redis-server openssl=openssl
	go test -count=1 ./...
	@if ((EUID != 0)); then \
		echo '***  Tests with files and callers of other users were left out: they take root.  ***'; \
		[[ $(SYSTEMD_TESTS) != required ]]; \
	fi
	@if [[ -d /proc/net ]] && ! grep -qs '^0*1 ' /proc/net/if_inet6; then \
		echo '***  Tests over IPv6 were left out: this host has no ::1.  ***'; \
		[[ $(IPV6_TESTS) != required ]]; \
	fi

test-short: ## Unit tests alone, in seconds
	go test -short ./...

test-race: ## The same tests under the race detector (gcc)
	@$(need) gcc=gcc redis-server=redis-server openssl=openssl
	CGO_ENABLED=1 go test -race -count=1 ./...

test-systemd: ## Install, reload, upgrade, purge under a booted systemd (root, network); SUITES, CLAIMS
	@if [[ $$(uname -s) == Linux && $$EUID == 0 ]]; then \
		$(MAKE) --no-print-directory lab-tests; \
	else \
		echo '*****************************************************************'; \
		echo '***  The systemd tests were NOT run: they take root on Linux.  ***'; \
		echo '***  sudo make test-systemd runs them.                         ***'; \
		echo '*****************************************************************'; \
		[[ $(SYSTEMD_TESTS) != required ]]; \
	fi

lab-tests: lint-packages .build/next .build/labkit
	packaging/lab/lab-tests $(SUITES)

cover: ## Coverage by package, script tests included
	@rm -rf .build/cover && mkdir -p .build/cover
	GOCOVERDIR=$(CURDIR)/.build/cover go test -count=1 -cover -coverpkg=./... ./... \
		-args -test.gocoverdir=$(CURDIR)/.build/cover >.build/cover.log || { cat .build/cover.log; exit 1; }
	go tool covdata percent -i=.build/cover

fuzz: ## Each fuzz target for FUZZTIME (30s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "==== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package"; \
		done; \
	done

golden: ## Rewrite golden files; read the diff before you commit it
	go test -count=1 $$(grep -rl --include='*_test.go' 'flag.Bool("update"' cmd internal | xargs -n1 dirname | sort -u | sed 's#^#./#') -update

bench: ## Go benchmarks, BENCH_COUNT (10) runs each, into .build/bench.txt; BENCH picks some, BASE is an earlier result
	@mkdir -p .build
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCH_COUNT) ./... | tee .build/bench.txt
	$(tool) benchstat $(BASE) .build/bench.txt

profile: ## Rewrite the profile that the program is built with, in a minute on an idle machine; see docs/decisions/0023
	@mkdir -p .build
	go test -trimpath -run '^$$' -bench 'ExchangeParallel$$' -cpu 1,2 -benchtime 10s \
		-cpuprofile $(CURDIR)/cmd/mtls-proxy/default.pgo -o .build/proxy.test ./internal/proxy

bench-footprint: build ## Instructions and cache lines of an exchange, by function (root for apt); ARGS for the script
	@$(need) qemu-x86_64=qemu-user gcc=gcc nginx=nginx-light openssl=openssl python3=python3
	internal/bench/footprint $(ARGS) dist/mtls-proxy

bench-compare: build ## Beside nginx, HAProxy and others (root for apt); ARGS for the script
	@$(need) nginx=nginx-light haproxy=haproxy wrk=wrk h2load=nghttp2-client openssl=openssl python3=python3
	MTLS_PROXY=$(CURDIR)/dist/mtls-proxy internal/bench/compare $(ARGS)

bench-size: build ## Many upstreams, routes and callers, beside HAProxy, in five minutes (root for apt); ARGS for the script
	@$(need) nginx=nginx-light haproxy=haproxy wrk=wrk openssl=openssl python3=python3
	internal/bench/size $(ARGS) dist/mtls-proxy

bench-features: build ## What each feature costs per exchange, in eight minutes (root for apt); ARGS for the script
	@$(need) nginx=nginx-light h2load=nghttp2-client openssl=openssl python3=python3 redis-server=redis-server
	go test -run '^$$' -bench 'Exchange$$' ./internal/metrics
	MTLS_PROXY=$(CURDIR)/dist/mtls-proxy internal/bench/compare --features --max-seconds 440 $(ARGS)

bench-faults: ## What becomes of requests while upstreams fail and callers misbehave, in a quarter of an hour (root for links)
	@mkdir -p .build
	go test -count=1 -timeout 1h ./internal/bench/faults -args -table $(CURDIR)/.build/reliability.md
	@cat .build/reliability.md

# ---- lint -------------------------------------------------------------------

lint: $(golangci) ## gofmt, vet, staticcheck, golangci-lint, govulncheck, tidiness, shellcheck (network)
	@$(need) shellcheck=shellcheck
	@files=$$(gofmt -l cmd internal packaging); [[ ! $$files ]] || { echo "gofmt has changes for: $$files"; exit 1; }
	go vet ./...
	$(tool) staticcheck ./...
	$(golangci) run ./...
	go mod tidy -diff
	shellcheck -x $(scripts)
	shellcheck -s sh $(rpm_scripts)
	@$(MAKE) --no-print-directory vulnerabilities

# The database is on the network. That it cannot be reached is no fault of this
# code; what it knows about it is.
vulnerabilities:
	@status=0; $(tool) govulncheck ./... || status=$$?; \
	if ((status == 3)); then exit 1; fi; \
	if ((status != 0)); then echo '***  govulncheck could NOT be run, see above.  ***'; fi

lint-packages: packages ## lintian, rpmlint and the lists of files, on what is in dist/
	@$(need) lintian=lintian rpmlint=rpmlint rpm=rpm
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 dist/*.deb
	rpmlint --config packaging/rpm/rpmlint.toml dist/*.rpm
	packaging/list dist/*.deb | diff -u packaging/deb/files -
	packaging/list dist/*.rpm | diff -u packaging/rpm/files -

# ---- packages ---------------------------------------------------------------

packages: $(nfpm) ## One .deb and one .rpm into dist/
	NFPM=$(nfpm) packaging/build '$(VERSION)' dist

repro: $(nfpm) ## Build both packages of the last commit twice, elsewhere, and compare them
	NFPM=$(nfpm) packaging/repro

# The same packages with a later version, to upgrade to.
.build/next: $(nfpm) packages
	NFPM=$(nfpm) packaging/build '$(VERSION).next' .build/next

.build/labkit: FORCE
	go build -trimpath -o $@ ./packaging/lab/labkit

# ---- tools ------------------------------------------------------------------

$(nfpm):
	GOBIN=$(@D) go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(nfpm_version)

# Built from source in about 80 s on two cores, the first time.
$(golangci):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(golangci_version)

clean: ## Remove what was built (.bin keeps the tools)
	rm -rf dist .build

# Two cores are busy with one of these.
.NOTPARALLEL:
.PHONY: help build demo test test-unit test-short test-race test-systemd lab-tests cover fuzz golden bench profile bench-footprint bench-compare bench-size bench-features bench-faults \
	lint vulnerabilities lint-packages packages repro clean FORCE .build/next
