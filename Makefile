# The two commands of the README, and what they stand on. `make help` lists them.
.PHONY: demo test bench setup fmt clippy unit docs deny clean help

CARGO ?= cargo

demo: setup ## Build the tool, run the whole experiment of pipeline.yaml, print the table
	$(CARGO) build --release --locked
	./target/release/pipeline build
	@echo
	@./target/release/pipeline report

test: fmt clippy unit docs ## Everything that CI checks

fmt:
	$(CARGO) fmt --check

clippy: setup
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features -- -D warnings

unit: setup
	$(CARGO) test --locked

docs: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

deny: ## Licences and advisories of the dependencies (needs cargo-deny)
	$(CARGO) deny check

bench: setup ## Measure the null build beside ninja and make; writes bench/RESULTS.md
	$(CARGO) build --release --locked
	python3 bench/null_build.py

setup: ## On Linux: MLX into .mlx/; on macOS nothing
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing; install it with: https://rustup.rs"; exit 1; }
ifeq ($(shell uname -s),Linux)
	@scripts/mlx-linux/setup.sh
endif

clean: ## Remove what was built, and .mlx/
	$(CARGO) clean
	rm -rf .mlx

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile
