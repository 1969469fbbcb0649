# What a developer runs. `make help` lists it.

CARGO ?= cargo
GO ?= go
IMAGE ?= coterie:0.1.0
SEEDS ?= 500
FROM ?= 1
SECONDS ?= 10
ROUNDS ?= 2
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
E2E := $(CARGO) run --quiet --package coterie-e2e --

.PHONY: help demo bench test sim sim-mutants sim-porcupine chaos fuzz lint fmt deny generate image e2e e2e-all needs-cargo needs-go \
	needs-e2e

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: needs-cargo ## build what the demonstration needs and run it: three members, three applications, a leader is killed
	$(CARGO) build --bin coterie-sidecar --bin coterie --bin coterie-worker --bin coterie-demo
	target/debug/coterie-demo

bench: needs-cargo ## the same load on Coterie and on etcd, in alternating rounds: make bench BENCH='--quick --only write'
	$(CARGO) build --release --package coterie-sidecar
	$(CARGO) run --release --quiet --package coterie-bench -- $(BENCH)

test: needs-cargo lint deny ## all checks and tests that need no Kubernetes and no root
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
	cd tests/sim && $(CARGO) test --release

sim: needs-cargo ## chaos for many seeds, as many at a time as there are cores: make sim SEEDS=500 FROM=1
	cd tests/sim && $(CARGO) run --release --quiet -- --seeds "$(SEEDS)" --from "$(FROM)"

sim-mutants: needs-cargo ## each seeded bug, and the seed by which the simulator finds it: make sim-mutants SEEDS=200
	cd tests/sim && $(CARGO) run --release --quiet -- --mutants "$(SEEDS)" --from "$(FROM)"

sim-porcupine: SEEDS = 20
sim-porcupine: needs-cargo needs-go ## the simulator's checker and Porcupine (in Go) on the same histories: make sim-porcupine SEEDS=20
	rm -rf tests/sim/target/histories
	cd tests/sim && $(CARGO) run --release --quiet -- --seeds "$(SEEDS)" --from "$(FROM)" --histories target/histories
	cd tests/sim/porcupine && $(GO) test . && $(GO) run . ../target/histories

chaos: needs-cargo ## real processes killed, stopped and without room, and their clients' history: make chaos ROUNDS=2 SEED=7
	@command -v unshare mkfs.ext4 >/dev/null || { echo 'unshare or mkfs.ext4 is missing: sudo apt-get install util-linux e2fsprogs' >&2; exit 1; }
	$(CARGO) build --package coterie-sidecar --package coterie-processes --bins
	target/debug/coterie-processes --rounds "$(ROUNDS)" $(if $(SEED),--seed "$(SEED)")

fuzz: needs-cargo ## bytes from outside, guided by coverage, so long for every parser that meets them: make fuzz SECONDS=10
	@command -v c++ >/dev/null || { echo 'a C++ compiler is missing: sudo apt-get install g++' >&2; exit 1; }
	CARGO="$(CARGO)" tests/fuzz/fuzz.sh "$(SECONDS)"

lint: needs-cargo ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: needs-cargo ## format everything
	$(CARGO) fmt --all
	cd tests/sim && $(CARGO) fmt
	cd tests/fuzz && $(CARGO) fmt

deny: needs-cargo ## licences, duplicate and unwanted crates, their sources (no network is needed)
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --offline --log-level error check licenses bans sources; \
	else echo 'deny: SKIPPED, cargo-deny is missing: cargo install --locked cargo-deny'; fi

generate: needs-cargo ## write again what is generated: the CRDs (also the chart's copy), the table of conformance
	$(CARGO) run --quiet --package coterie-operator -- crds --write
	UPDATE=1 $(CARGO) test --quiet --package coterie-conformance --test table

image: ## the image for users, all stages of the Dockerfile, with docker or buildah: make image IMAGE=registry/coterie:0.1.0
	@if command -v docker >/dev/null; then docker build --tag "$(IMAGE)" .; \
	elif command -v buildah >/dev/null; then buildah build --tag "$(IMAGE)" .; \
	else echo 'docker or buildah is missing: sudo apt-get install --no-install-recommends buildah' >&2; exit 1; fi

e2e: needs-e2e ## the core scenarios on a real Kubernetes: KUBECONFIG, else kind, else tests/kube (root)
	$(E2E) run

e2e-all: needs-e2e ## every scenario on a real Kubernetes
	$(E2E) run --all

needs-cargo:
	@command -v $(CARGO) >/dev/null || { echo 'cargo is missing: https://rustup.rs' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'a C compiler and linker is missing: sudo apt-get install gcc libc6-dev' >&2; exit 1; }

needs-go:
	@command -v $(GO) >/dev/null || { echo 'Go is missing: https://go.dev/dl' >&2; exit 1; }

# What the scenarios need depends on the Kubernetes that they find; each says itself what it lacks. This says it early.
needs-e2e: needs-cargo
	@if [ -z "$${KUBECONFIG:-}" ] && ! { command -v kind && command -v docker; } >/dev/null; then tests/kube/kube.sh check; fi
