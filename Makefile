# The two commands of the README, and what they stand on. `make help` lists them.
.PHONY: demo test soak bench setup cargo mlx fmt clippy unit docs deny clean help

CARGO ?= cargo

demo: cargo ## Build the tool, run the whole experiment of pipeline.yaml, print the table
	$(CARGO) build --profile demo --locked
	./target/demo/pipeline build
	@echo
	@./target/demo/pipeline report

test: fmt clippy unit docs ## Everything that CI checks

fmt:
	$(CARGO) fmt --check

clippy: mlx
	$(CARGO) clippy --locked --workspace --features mlx --all-targets -- -D warnings
	$(CARGO) clippy --locked -- -D warnings

unit: setup
	$(CARGO) test --locked --workspace --features mlx
	$(CARGO) test --locked --test e2e device:: # without MLX, as `make demo` builds it

docs: mlx
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --features mlx --no-deps

soak: setup ## Hundreds of kills and full disks, thousands of changed files; about twenty minutes
	PIPELINE_SOAK=1 $(CARGO) test --locked --features mlx --test e2e -- --nocapture --test-threads 1 soak:: kills:: measurements:: workers::whatever

deny: ## Licences and advisories of the dependencies (needs cargo-deny)
	$(CARGO) deny check

bench: setup ## Measure beside ninja and make, beside mlx-lm and llama.cpp; writes bench/RESULTS.md
	@scripts/llama-cpp/setup.sh
	$(CARGO) build --release --locked --features mlx
	$(CARGO) build --release --locked -p cpu --example read_memory
	$(CARGO) build --release --locked -p engine --example scale
	python3 bench/null_build.py
	python3 bench/weights.py
	python3 bench/experts.py
	python3 bench/load.py
	python3 bench/decode.py
	python3 bench/remote.py
	python3 bench/workers.py

setup: mlx ## MLX for the build, mlx-lm, an S3 server, sshd and Slurm for the tests and the benchmarks
	@scripts/mlx-lm/setup.sh
	@scripts/seaweedfs/setup.sh
	@scripts/engines/setup.sh

cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing; install it with: https://rustup.rs"; exit 1; }

mlx: cargo # On Linux: MLX into .mlx/; on macOS nothing
ifeq ($(shell uname -s),Linux)
	@scripts/mlx-linux/setup.sh
endif

clean: ## Remove what was built, .mlx/, .mlx-lm/, .seaweedfs/ and .llama-cpp/
	$(CARGO) clean
	rm -rf .mlx .mlx-lm .seaweedfs .llama-cpp

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile
