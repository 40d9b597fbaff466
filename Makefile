# Run `make` for the list of targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Image that `make deploy` runs.
IMG ?= ghcr.io/svcdiag/svcdiag:v0.1.0
# What the manifests are applied with; any kubectl from 1.30.
KUBECTL ?= kubectl

# Test targets that Cargo leaves out of --all-targets: `make test` runs them on their own.
ALONE := --test node --test security --test matrix

# As `build` has made it: `cargo run -p` would build it again, with other features of what it depends on.
SANDBOX := $${CARGO_TARGET_DIR:-target}/debug/svcdiag-sandbox

##@ General

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36mTARGET\033[0m\n"} \
	  /^[a-zA-Z_-]+:.*?##/ { printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2 } \
	  /^##@/ { printf "\n\033[1m%s\033[0m\n", substr($$0, 5) }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what the build and the tests need and this machine lacks (done by the other targets).
	@hack/setup

##@ Try it

.PHONY: demo
demo: build ## Break a Service in a local cluster five times and watch the verdicts.
	@$(SANDBOX) demo

.PHONY: demo-all
demo-all: build ## Break it in every stage, with kube-proxy in two modes.
	@$(SANDBOX) demo --all

.PHONY: sandbox
sandbox: build ## Start the local cluster and leave it running for your own kubectl.
	@$(SANDBOX) up

##@ Development

.PHONY: build
build: setup ## Build the binaries.
	@$(CARGO) build --locked --workspace --bins

.PHONY: generate
generate: ## Write crds/, those of the chart, and the table of stages in docs/conditions.md again from the types in crates/api/src.
	@$(CARGO) run --locked --quiet --bin svcdiag -- crd --output-dir crds
	@hack/chart
	@GENERATE=1 $(CARGO) test --locked --quiet -p svcdiag-api --test conditions the_page_has_the_stages

.PHONY: fmt
fmt: ## Format the code.
	@$(CARGO) fmt --all

.PHONY: lint
lint: setup ## Check format, lints (of the command line for macOS and Windows as well), documentation, the walls between the crates, and Cargo.lock (deny.toml).
	@$(CARGO) fmt --all -- --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --locked $(ALONE) -- -D warnings
	@$(CARGO) clippy --locked --features opentelemetry -- -D warnings
	@hack/cross-check
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	@hack/walls
	@hack/deny

.PHONY: test
test: setup ## Run all tests against the embedded sandbox.
	@$(CARGO) test --locked --workspace --no-run
	@$(CARGO) test --locked --no-run $(ALONE)
	@status=0; \
	  $(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going test-most test-node || status=$$?; \
	  $(MAKE) --no-print-directory test-matrix || status=$$?; \
	  exit $$status

# Without the assets the tests stand on their own API server.
AS_ROOT := env -u KUBEBUILDER_ASSETS hack/as-root

.PHONY: test-most test-node test-matrix
test-most:
	@$(AS_ROOT) $(CARGO) test --locked --workspace --no-fail-fast
test-node:
	@RUST_TEST_THREADS=4 $(AS_ROOT) $(CARGO) test --locked --no-fail-fast --test node --test security
test-matrix:
	@RUST_BACKTRACE=0 $(AS_ROOT) $(CARGO) test --locked --test matrix -- --nocapture --test-threads=2

.PHONY: chaos
chaos: setup ## Kill controllers, agents and the API server at random for CHAOS_SECONDS, by default half an hour.
	@SVCDIAG_CHAOS_SECONDS=$${CHAOS_SECONDS:-1800} RUST_BACKTRACE=0 $(AS_ROOT) $(CARGO) test --locked --test matrix -- --nocapture chaos

.PHONY: test-apiserver
test-apiserver: setup build ## Run the end-to-end tests on the etcd and kube-apiserver in KUBEBUILDER_ASSETS.
	@hack/test-apiserver

.PHONY: fuzz
fuzz: setup ## Run every fuzz target (fuzz/) for FUZZ_SECONDS, by default an hour, two at a time.
	@hack/fuzz

.PHONY: fuzz-short
fuzz-short: setup ## The same for a minute each.
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-60} hack/fuzz

.PHONY: bench
bench: setup ## Measure, and print the figures as tables.
	@$(CARGO) build --locked --release --workspace --bins
	@$(CARGO) bench --locked --workspace --benches

.PHONY: run
run: build ## Run the controller on this machine against the cluster of the current kubeconfig.
	@$(CARGO) run --locked --quiet --bin svcdiag -- controller

.PHONY: dist
dist: setup ## Build what a release consists of into target/dist: archives, image, manifests, chart, checksums (TARGETS=...).
	@hack/dist

##@ Deployment

.PHONY: install
install: ## Install the CRDs into the cluster of the current kubeconfig.
	@$(KUBECTL) apply --server-side -k crds

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every ServiceDiagnosis.
	@$(KUBECTL) delete --ignore-not-found -k crds

.PHONY: image-load
image-load: ## Put the image that `make dist` wrote into a local cluster (CLUSTER=kind|k3d|minikube|containerd).
	@hack/image-load

.PHONY: deploy
deploy: ## Install the CRDs, the controller and the agents (IMG=...).
	@$(KUBECTL) kustomize config/default | sed 's#image: .*/svcdiag:.*#image: $(IMG)#' | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove the controller, the agents and the CRDs.
	@$(KUBECTL) kustomize config/default | $(KUBECTL) delete --ignore-not-found -f -
