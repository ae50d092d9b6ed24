# Two commands are the whole set-up: `make run` and `make test`.
.DEFAULT_GOAL := help
CARGO ?= cargo
ARGS ?=
STEPS ?=
# The real clients that tests drive, what breaks the world around the server,
# and the siblings' servers; Debian keeps postgres off the path.
PACKAGES := netcat-openbsd netcat-traditional ncat telnet socat curl bsdutils strace iproute2 util-linux redis-server postgresql openssl systemd
TOOLS := nc.openbsd nc.traditional ncat telnet socat curl script logger bash strace ip ss unshare nsenter prlimit setpriv redis-server openssl systemd-analyze systemd-socket-activate \
	$(or $(wildcard /usr/lib/postgresql/*/bin/postgres),postgres)
# The servers to measure against, and a load generator that is not ours.
BENCH_PACKAGES := iproute2 util-linux golang-go socat ncat xinetd ucspi-tcp redis-tools
BENCH_TOOLS := ip unshare go socat ncat xinetd tcpserver redis-benchmark
BENCH := $(CARGO) run --release --quiet -p lastecho-bench --
# Tests mostly wait, so more of them at once than there are processors. In the
# background of a script INT is ignored, and what tests start inherits that:
# hence env.
TEST_THREADS := $(shell echo $$((2 * $$(nproc))))
# The rows that `make torture` measured.
ROWS := $(CURDIR)/target/reliability.rows

# Modules without sockets.
MIRI := deadline:: early:: episode:: escape:: event:: panics:: queue:: report:: shutdown:: stop:: whole_lines:: workers::
# Servers in the test's own process or stopped with one signal: ThreadSanitizer
# delays signals for as long as it likes.
RACES := tests:: library:: jobs:: exactness:: ending:: accounts:: storm::
TSAN := RUSTFLAGS=-Zsanitizer=thread $(CARGO) +nightly
TSAN_FLAGS := -Zbuild-std --target x86_64-unknown-linux-gnu --target-dir target/tsan

.PHONY: help run demo test ladder torture soak systemd models miri tsan check deps doc release peers bench bench-quick bench-scaling bench-deps

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: ## Run the server on 127.0.0.1:48879; options: make run ARGS='-v 7777'
	$(CARGO) run --release --quiet -- $(ARGS)

demo: release ## Watch a stop and a restart: a session of 20 seconds
	examples/demo.sh

test: deps check doc ## Everything that CI runs: checks, docs, all tests with real clients
	$(CARGO) test --no-default-features --lib
	$(CARGO) build --workspace --examples
	env --default-signal $(CARGO) test --workspace --lib --bins --tests -- --include-ignored --test-threads=$(TEST_THREADS)
	$(CARGO) test --workspace --doc
	$(MAKE) --no-print-directory models

ladder: ## Learn how a server stops gracefully, in eight steps; some: make ladder STEPS='5 6'
	$(CARGO) build --quiet --examples
	@examples/ladder.sh $(STEPS)

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

torture: deps ## Break everything around the server and redis-to-db, at length; writes docs/reliability.md
	$(CARGO) build -p redis-to-db --examples
	LASTECHO_LONG=1 $(CARGO) test -p redis-to-db --test it -- --include-ignored --nocapture random::
	@mkdir -p $(dir $(ROWS)) && rm -f $(ROWS)
	$(CARGO) build --examples
	LASTECHO_LONG=1 LASTECHO_TABLE=$(ROWS) $(CARGO) test --test torture -- --include-ignored --nocapture
	sed -i '/^| what fails/{n;q}' docs/reliability.md && sort -t'|' -k4 $(ROWS) >> docs/reliability.md

soak: deps ## Ten minutes of mixed load with stops and restarts, and a summary
	$(CARGO) build --examples
	LASTECHO_SOAK=10m $(CARGO) test --test torture -- --include-ignored --nocapture soak

# A tree: debootstrap --variant=minbase --include=systemd trixie /srv/trixie
systemd: deps ## The tests under the systemd of another tree: make systemd TREE=/srv/trixie
	LASTECHO_SYSTEMD='$(or $(TREE),/)' $(CARGO) test --test it -- --include-ignored handover::systemd

check: ## Formatting and lints; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) clippy --no-default-features --lib --quiet -- -D warnings

doc: ## Build the documentation; warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet

release: ## Build the program as it is measured
	$(CARGO) build --release --quiet

peers: release ## Build the servers to measure against, which `cargo run` does not
	$(CARGO) build --release --quiet -p lastecho-bench

# A whole run is published, a part of one is not.
PUBLISH := $(if $(ARGS),,--results benches/results)

bench: peers ## Measure against other echo servers; some 25 minutes, results in benches/results
	$(BENCH) $(PUBLISH) $(ARGS)

bench-quick: peers ## The same with one short round, in two minutes, to see that it works
	$(BENCH) --quick $(ARGS)

bench-scaling: peers ## Cost and memory per connection, from 1 to 8,000 of them
	$(BENCH) --scaling --only lastecho,go,tokio,epoll $(PUBLISH) $(ARGS)

# Installs the packages $(1) unless the programs $(2) are there; servers are
# not on everybody's PATH.
define install
@PATH="$$PATH:/usr/sbin"; missing=; for tool in $(2); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
if [ -z "$$missing" ]; then exit 0; fi; \
if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	echo "installing $(1)"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1) >/dev/null; \
else \
	echo "missing:$$missing"; echo "install them first, on Debian or Ubuntu with:"; \
	echo "  sudo apt-get install $(1)"; exit 1; \
fi
endef

deps: ## Install the clients and servers that the tests drive, or say what is missing
	$(call install,$(PACKAGES),$(TOOLS))

bench-deps: ## Install the servers that are measured against, or say what is missing
	$(call install,$(BENCH_PACKAGES),$(BENCH_TOOLS))
