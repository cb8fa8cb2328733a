# make help lists the targets. Everything that is built or kept lies in bin/ and .cache/.

SHELL := /bin/sh
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

# Static programs everywhere; the race detector alone needs C, and says so where it is used.
export CGO_ENABLED := 0
# Things worth keeping between test runs: the linter, a built image, a downloaded kernel.
export BANGER_TEST_CACHE := $(CURDIR)/.cache/test
# Make's own variables must not reach a make that a test starts.
unexport MAKEFLAGS

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD := go build -trimpath -buildvcs=false
LDFLAGS := -X banger/internal/version.Version=$(VERSION)
GUEST := internal/guestbin/bin/banger-guest.gz

N ?= 50
LAB_N ?= 6

.PHONY: build
build: ## Build bin/banger and bin/bangerd (with the guest inside)
	@# go build decides what is stale; the guest is only put in place when its bytes changed, so that bangerd is not relinked for nothing.
	@$(GO_BUILD) -ldflags '-s -w $(LDFLAGS)' -o bin/banger-guest ./cmd/banger-guest
	@sha256sum <bin/banger-guest | cmp -s - $(GUEST:gz=sha256) || { rm -f $(GUEST:gz=sha256) && gzip -9nc bin/banger-guest >$(GUEST) && sha256sum <bin/banger-guest >$(GUEST:gz=sha256); }
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/banger ./cmd/bangerd

.PHONY: run
run: deps build ## Install packages, build, get kernel and image, run one command in a VM
	@scripts/first-run

.PHONY: deps
deps:
	@scripts/install-deps

# Where make install puts things; DESTDIR goes before it, for who makes a package.
PREFIX ?= /usr/local
MAN := bin/man/man1

.PHONY: man
man: ## Write manual pages into bin/man
	@rm -rf $(MAN)
	@go run -ldflags '$(LDFLAGS)' ./scripts/man -date $$(git log -1 --format=%ct 2>/dev/null || echo 0) $(MAN)

.PHONY: install
install: build man ## Install programs, manual pages and completions below PREFIX (/usr/local)
	@scripts/install install $(DESTDIR)$(PREFIX)

.PHONY: uninstall
uninstall: ## Remove what make install put there; VMs and their state stay
	@scripts/install uninstall $(DESTDIR)$(PREFIX)

.PHONY: clean
clean: ## Delete what was built and cached in this clone
	rm -rf bin .cache $(GUEST) $(GUEST:gz=sha256)

.PHONY: test
test: test-deps build ## Install packages, lint, run every test; the host is left as found
	@scripts/test

.PHONY: test-deps
test-deps:
	@scripts/install-deps test

.PHONY: lint
lint: ## gofmt, go vet and golangci-lint (built on first use)
	@scripts/lint

.PHONY: mutate
mutate: ## Break the product on purpose: the crash tests must find each break
	@go test ./internal/crashtest -count=1 -timeout 40m -run TestMutantsAreFound -mutate -v

.PHONY: soak
soak: test-deps build ## N=50 cold starts in a row: all must succeed and leave nothing, and the daemon must not grow
	@go run ./scripts/host-diff scripts/soak $(N)

.PHONY: storm
storm: test-deps build ## Two minutes of 20 clients on 10 VMs (stand-ins) while the daemon is killed; then all must be right
	@BANGER_TEST_REAL=1 BANGER_TEST_STORM=2m go run ./scripts/host-diff go test -count=1 -timeout 20m -v -run TestStorm ./internal/daemon

.PHONY: bench
bench: deps build ## Measure starts, exec and list against what the guest alone needs
	@go run ./scripts/host-diff scripts/bench/run

.PHONY: lab
lab: test-deps build ## Run what needs KVM and device-mapper, inside a VM that has both
	@go run ./scripts/host-diff go test -count=1 -timeout 60m -v ./internal/lab -lab

.PHONY: crashtable
crashtable: test-deps build ## Run the crash tests, here and in the lab, and write their table into docs/RELIABILITY.md
	@rm -f .cache/crash-results && mkdir -p .cache
	@BANGER_CRASH_RESULTS=$(CURDIR)/.cache/crash-results go test -count=1 ./internal/crashtest
	@BANGER_CRASH_RESULTS=$(CURDIR)/.cache/crash-results BANGER_CRASH_EVERY=1 BANGER_TEST_REAL=1 go test -count=1 -timeout 90m -run TestMatrix ./internal/e2e
	@BANGER_CRASH_RESULTS=$(CURDIR)/.cache/crash-results go test -count=1 -timeout 60m ./internal/lab -lab -run TestLab/suites -suites ./internal/e2e
	@go run ./scripts/crashtable -promised .cache/crash-results docs/RELIABILITY.md

.PHONY: bench-lab
bench-lab: test-deps build ## Measure cold starts on Firecracker against a bare one, in the lab
	@CGO_ENABLED=0 go build -o .cache/bin/bench ./scripts/bench
	@go run ./scripts/host-diff go run ./scripts/lab -put .cache/bin/bench:/srv/bench /srv/bench -firecracker -n $(LAB_N) -root /var/lib/banger -banger /usr/local/bin/banger

.PHONY: transcript
transcript: test-deps build ## Run the seed scenario in the lab and write docs/SEED.md
	@go run ./scripts/host-diff go test -count=1 -timeout 30m ./internal/lab -lab -run TestLab/seed -transcript docs/SEED.md

.PHONY: docs
docs: test-deps build ## Type every session of README.md and docs/guide.md, and write what it prints today
	@BANGER_TEST_REAL=1 go run ./scripts/host-diff go test -count=1 -timeout 20m ./internal/e2e -run 'TestDocs|TestCast' -write

.PHONY: lab-shell
lab-shell: test-deps build ## A shell in such a VM, deleted at the end
	@go run ./scripts/host-diff go run ./scripts/lab

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
