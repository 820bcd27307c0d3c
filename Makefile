# A preset CARGO_TARGET_DIR is respected throughout.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
venvs := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nomad-build

.DEFAULT_GOAL := help
.PHONY: help setup release demo test lint bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what builds need on this machine (Debian)
	scripts/setup.sh

release: ## Compile target/release/nomad-build
	cargo build --release --locked

demo: setup release ## Build, test and publish examples/hello against a registry of its own
	python3 scripts/demo.py

test: ## Run every test: Rust, then end to end with real Buildah and registries
	scripts/setup.sh test
	cargo build --release --locked
	cargo test --locked
	$(venvs)/py-mcp-2/bin/pytest tests/e2e
	$(venvs)/py-mcp-1/bin/pytest tests/e2e

lint: ## Check format and lints
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

bench: ## Run the benchmarks
	cargo bench --locked
