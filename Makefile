# Two commands are the whole set-up: `make run` and `make test`.
.DEFAULT_GOAL := help
CARGO ?= cargo
ARGS ?=
# The real clients that tests drive, and what breaks the world around the server.
PACKAGES := netcat-openbsd netcat-traditional ncat telnet socat curl bsdutils strace iproute2 util-linux redis-server postgresql
TOOLS := nc.openbsd nc.traditional ncat telnet socat curl script logger bash strace ip tc unshare prlimit setpriv redis-server
# Debian keeps it off the path.
POSTGRES = $(wildcard /usr/lib/postgresql/*/bin/postgres)
# The rows that `make torture` measured.
ROWS := $(CURDIR)/target/reliability.rows

# Modules without sockets.
MIRI := deadline:: early:: episode:: event:: panics:: queue:: report:: shutdown:: stop:: workers::
# Servers in the test's own process or stopped with one signal: ThreadSanitizer
# delays signals for as long as it likes.
RACES := tests:: library:: jobs:: exactness:: ending:: accounts:: storm::
TSAN := RUSTFLAGS=-Zsanitizer=thread $(CARGO) +nightly
TSAN_FLAGS := -Zbuild-std --target x86_64-unknown-linux-gnu --target-dir target/tsan

.PHONY: help run test torture soak models miri tsan check deps doc

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: ## Run the server on 127.0.0.1:48879; options: make run ARGS='-v 7'
	$(CARGO) run --release --quiet -- $(ARGS)

test: deps check doc ## Everything that CI runs: checks, docs, all tests with real clients
	$(CARGO) test --no-default-features --lib
	$(CARGO) build --workspace --examples
	$(CARGO) test --workspace --lib --bins --tests -- --include-ignored
	$(CARGO) test --workspace --doc
	$(MAKE) --no-print-directory models

models: ## The concurrent bookkeeping under thousands of schedules (shuttle)
	RUSTFLAGS='--cfg shuttle' $(CARGO) test --no-default-features --lib --target-dir target/shuttle models

# A panic payload that panics when dropped is leaked on purpose.
# Both need the nightly toolchain with the components rust-src and miri.
miri: ## Undefined behaviour, in the modules that need no sockets (nightly)
	RUST_BACKTRACE=0 MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" $(CARGO) +nightly miri test --no-default-features --lib \
		--target-dir target/miri -- $(MIRI)

tsan: ## Data races, in the library and in whole servers (nightly)
	$(TSAN) build $(TSAN_FLAGS) --examples
	$(TSAN) test $(TSAN_FLAGS) --lib --test it -- $(RACES)

torture: deps ## Break everything around the server, at length; writes docs/reliability.md
	@mkdir -p $(dir $(ROWS)) && rm -f $(ROWS)
	$(CARGO) build --examples
	LASTECHO_LONG=1 LASTECHO_TABLE=$(ROWS) $(CARGO) test --test torture -- --include-ignored --nocapture
	sed -i '/^| what fails/{n;q}' docs/reliability.md && sort -t'`' -k2 $(ROWS) >> docs/reliability.md

soak: deps ## Ten minutes of mixed load with stops and restarts, and a summary
	$(CARGO) build --examples
	LASTECHO_SOAK=10m $(CARGO) test --test torture -- --include-ignored --nocapture soak

check: ## Formatting and lints; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) clippy --no-default-features --lib --quiet -- -D warnings

doc: ## Build the documentation; warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet

deps: ## Install the real clients that the tests drive, or say what is missing
	@missing=; for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$(POSTGRES)" ]; then missing="$$missing postgres"; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing $(PACKAGES)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PACKAGES) >/dev/null; \
	else \
		echo "missing:$$missing"; echo "install them first, on Debian or Ubuntu with:"; \
		echo "  sudo apt-get install $(PACKAGES)"; exit 1; \
	fi
