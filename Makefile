# The two commands of a node are `make up` and `make test`.
#
#   make up       install what is missing, build, start this machine's node, print its addresses
#   make down     stop the node; containers and data stay
#   make purge    remove the node with all its containers, and nothing else
#   make install  put the command `hoody` into PREFIX/bin (/usr/local)
#   make build    the release binaries, with the web pages in them
#   make ui       the web pages alone
#   make test     everything, real containers included
#   make check    what of it is quick: format, lints, unit and in-process tests
#
# RUNTIME=local runs containers as plain processes: no root needed, ports 8080 and 8443.
# STATE=DIR keeps the node's state there. FLAGS='--domain example.org' are handed to `hoody up`.
# CARGO_TARGET_DIR is honoured; HOODY_CACHE=DIR keeps built images and tools there, whatever becomes of
# the node.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := up
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
HOODY := $(TARGET)/release/hoody
CACHE := $(or $(HOODY_CACHE),$(HOME)/.cache/hoody)
export PATH := $(CACHE)/tools/bin:$(PATH)
UI := kit-services/ui
STATE_FLAG := $(if $(STATE),--state '$(STATE)')
UP_FLAGS := $(STATE_FLAG) --kitd '$(TARGET)/release/kitd' --setup '$(CURDIR)/hoody/setup' --recipe '$(CURDIR)/control/image' \
	$(if $(HOODY_CACHE),--images '$(HOODY_CACHE)/images')

step = @printf '\n== %s\n' '$(1)'

.PHONY: up down purge install build ui check fuzz pages e2e test

# Exit code 3 of packages.sh: system containers cannot be had here, whatever is tried.
up:
	$(call step,packages that the build needs)
	@hoody/setup/packages.sh build
	@$(MAKE) build
	$(call step,the container engine and the node)
	@runtime='$(RUNTIME)'; \
	if [ "$${runtime:-incus}" = incus ]; then \
		code=0; hoody/setup/packages.sh engine || code=$$?; \
		if [ "$$code" = 3 ] && [ -z "$$runtime" ]; then \
			printf '\n*** %s\n' 'This machine cannot have what system containers need: see above.' \
				'Going on with RUNTIME=local: containers are plain processes, without isolation.' >&2; \
			runtime=local; \
		elif [ "$$code" != 0 ]; then exit "$$code"; fi; \
	fi; \
	exec '$(HOODY)' up $(UP_FLAGS) $${runtime:+--runtime "$$runtime"} $(FLAGS)

down:
	@'$(HOODY)' down $(STATE_FLAG)

purge:
	@'$(HOODY)' purge --yes $(STATE_FLAG)

install:
	@install -D -m 755 '$(HOODY)' '$(or $(PREFIX),/usr/local)/bin/hoody'

build: ui
	$(call step,the release binaries; some minutes the first time)
	@cargo build --release --locked -p hoody -p kitd

# The pages are made anew where a source is newer than what was made.
ui:
	$(call step,the web pages)
	@if ! command -v npm >/dev/null; then \
		echo 'npm is missing: the pages are not built, and the kit says so where one is opened'; \
	elif [ -d $(UI)/dist ] && [ -z "$$(find $(UI) -path $(UI)/node_modules -prune -o -path $(UI)/dist -prune -o -type f -newer $(UI)/dist -print -quit)" ]; then \
		echo 'nothing changed'; \
	else \
		cd $(UI); \
		{ [ -d node_modules ] && [ node_modules -nt package-lock.json ]; } || npm ci --no-audit --no-fund; \
		npm run --silent build; touch dist node_modules; \
	fi

# What is quick: enough between two commits.
check:
	@hoody/setup/packages.sh build check
	@hoody/setup/deno.sh --cache '$(CACHE)/tools' >/dev/null
	$(call step,format)
	@cargo fmt --all --check
	@$(MAKE) ui
	$(call step,lints)
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	$(call step,unit and in-process tests)
	@rm -rf '$(TARGET)/debug/contract-called'
	@cargo nextest run --workspace --locked
	@cargo nextest run --workspace --test census --locked --no-capture

# Fuzz targets, each for some seconds.
fuzz:
	$(call step,fuzz targets)
	@HOODY_TOOLS='$(CACHE)/tools' FUZZ_TARGET_DIR='$(CACHE)/fuzz-target' proxy/fuzz/run.sh $(or $(FUZZ_SECONDS),10)

# The web pages in a browser.
pages:
	$(call step,the pages in Chromium)
	@cd $(UI) && npm run --silent check && npm run --silent test && npm run --silent e2e
	@cargo nextest run --workspace --locked --run-ignored only -E 'test(with_a_browser)'
	$(call step,events in the usual client of Socket.IO)
	@control/tests/socketio.sh --locked

# Stories on real containers, on a node of their own.
e2e:
	@$(MAKE) build
	$(call step,stories on real containers)
	@CARGO_TARGET_DIR='$(TARGET)' HOODY_CACHE='$(CACHE)' control/tests/incus.sh
	@CARGO_TARGET_DIR='$(TARGET)' HOODY_CACHE='$(CACHE)' tests/e2e/run.sh

test:
	$(call step,packages)
	@hoody/setup/packages.sh build engine check test
	@command -v cargo-nextest >/dev/null || cargo install --locked --root '$(CACHE)/tools' cargo-nextest
	@$(MAKE) check
	@$(MAKE) pages
	@$(MAKE) fuzz
	@$(MAKE) e2e
