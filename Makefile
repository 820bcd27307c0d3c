# A preset CARGO_TARGET_DIR is respected throughout.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
venvs := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nomad-build

program := $(CARGO_TARGET_DIR)/release/nomad-build
# Tests run more builds at the same time than one server does; each of the thirds that run side by side has accounts of its own.
test_accounts := --users $(shell expr 4 '*' $$(nproc) + 8)
more_accounts = $(foreach prefix,nomad-build-b nomad-build-c,&& $(1) setup --prefix $(prefix) $(test_accounts))
set_up = $(1) setup $(if $(filter 0,$(shell id -u)),$(test_accounts) $(more_accounts))

# Tests of builds wait for processes as long as they compute.
test_threads := $(shell expr 2 '*' $$(nproc))

.DEFAULT_GOAL := help
.PHONY: help setup release demo demo-nomad packages machine test test-all attacks endurance dist lint bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the packages that builds need (Debian)
	scripts/setup.sh

release: ## Compile target/release/nomad-build
	cargo build --release --locked

demo: setup release ## Build, test and publish examples/hello against a registry of its own
	$(program) setup
	python3 scripts/demo.py

demo-nomad: release ## Bring up a Nomad with access control and do the same on it
	scripts/setup.sh test
	$(program) setup
	python3 scripts/demo_nomad.py

packages:
	scripts/setup.sh test

machine: packages
	cargo build --release --locked
	$(call set_up,$(program))

# With what `cargo test` compiles anyway: the release build takes many minutes more. test-all tests that one.
test: export NOMAD_BUILD_BIN ?= $(CARGO_TARGET_DIR)/debug/nomad-build
test: packages ## Run the tests: Rust, then end to end with real Buildah and registries
	cargo test --locked --all-features --no-run
	$(call set_up,$$NOMAD_BUILD_BIN)
	cargo test --locked --all-features -- --test-threads $(test_threads)
	$(venvs)/py-mcp-2/bin/pytest tests/e2e
	$(venvs)/py-mcp-1/bin/pytest -n 3 --dist loadgroup tests/e2e

test-all: machine ## Run them with the release build, with each pair of versions, on the oldest Nomad that must work, and of make dist
	scripts/setup.sh test-all
	cargo clippy --locked -- -D warnings
	$(MAKE) test NOMAD_BUILD_BIN=$(program)
	$(venvs)/py-mcp-1/bin/pytest -m matrix tests/e2e
	$(MAKE) dist
	$(venvs)/py-mcp-1/bin/pytest -m dist tests/e2e/test_dist.py
	cargo test --locked --all-features --test contract -- --ignored
	NOMAD_BUILD_TEST_NOMAD=$(venvs)/tools/nomad-1.10.5/nomad cargo test --locked --all-features --test contract -- nomad cluster storm
	NOMAD_BUILD_TEST_NOMAD=$(venvs)/tools/nomad-1.10.5/nomad $(venvs)/py-mcp-1/bin/pytest tests/e2e/test_nomad.py tests/e2e/test_nomad_docker.py tests/e2e/test_nomad_server.py tests/e2e/test_rights.py

attacks: machine ## Run the attacks of tests/attacks alone, and write their table into docs/security.md
	$(venvs)/py-mcp-1/bin/pytest -m '' tests/e2e/test_attacks.py -k 'not test_the_document'
	python3 scripts/security_table.py

endurance: machine ## Run the long storm: hundreds of builds that are killed at borders and at random
	$(venvs)/py-mcp-1/bin/pytest -m endurance -s tests/e2e

dist: ## Make dist/: a static program, a Debian package of it, and a container image
	scripts/setup.sh
	scripts/dist.sh

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --all-targets --all-features --locked -- -D warnings

bench: machine ## Run the benchmarks, and print their ratios as one table
	benches/run.sh
