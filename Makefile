# Two commands, on a fresh machine or an old one:  make demo   and   make test.
# Each sets up what it needs (in .venv, and for the tests a control plane in the user's cache; no root), and is quick the
# second time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/*/v1/*.proto)
# One more than cores, up to four: a quarter of the time of tests is waiting for real servers.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 3 ? 4 : n + 1)))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo test
demo: setup $(if $(filter kube,$(CLUSTER)),control-plane) ## Serve and train on a simulated cluster for an hour of trace; writes OUT/report.html. TRACE=FILE SEED=N OUT=DIR CLUSTER=kube
	@$(BIN)/plimsoll demo $(if $(CLUSTER),--cluster "$(CLUSTER)") $(if $(TRACE),--trace "$(TRACE)") $(if $(SEED),--seed "$(SEED)") --out "$(or $(OUT),out)"

test: lint type control-plane ## Lint, types, contracts between rooms, then every quick test
	@printf '\n-- tests (%s workers)\n' "$(WORKERS)"
	@$(PYTEST) $(ARGS)

.PHONY: test-all compiled control-plane cluster lint format type bench mutants crds constraints setup clean help FORCE
test-all: lint type control-plane ## The same with the slow tests and ten times the random cases
	@printf '\n-- all tests (%s workers)\n' "$(WORKERS)"
	@PLIMSOLL_PROPERTIES=thorough $(PYTEST) -m "" $(ARGS)

control-plane: setup ## Build etcd, kube-apiserver, … and kubectl into a cache outside this folder (once: 5 to 8 minutes)
	@$(BIN)/python -m console.controlplane build

compiled: setup ## Compile the engines of the simulator to machine code, for speed alone (needs a C compiler; some 20 s)
	@$(BIN)/python tools/compile_physics.py

cluster: control-plane ## Run a real control plane and a simulated fleet until Ctrl-C. NODES=demo|N SEED=N ENROL=HOST:PORT
	@exec $(BIN)/python -m console.controlplane up $(if $(ENROL),--enrol "$(ENROL)") $(if $(NODES),--nodes "$(NODES)") $(if $(SEED),--seed "$(SEED)")

lint: setup ## ruff: rules and format; import-linter: arrows between rooms point down
	@printf -- '-- ruff\n'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo 'Not formatted: `make format` does it.' >&2; exit 1; }
	@printf -- '-- import-linter\n'
	@$(BIN)/lint-imports --no-logo

format: setup ## Format the code and sort its imports
	@$(BIN)/ruff check --select I --fix --quiet .
	@$(BIN)/ruff format .

type: setup ## mypy --strict
	@printf -- '-- mypy\n'
	@$(BIN)/mypy

bench: setup ## Run the benchmarks and rewrite docs/benchmarks.md with its plots
	@$(BIN)/python -m benchmarks report $(if $(DATA),--data "$(DATA)") $(if $(SEED),--seed "$(SEED)")

mutants: setup ## Mutation testing of the decision core on a sample. SAMPLE=N SEED=N ROOMS="placement policies"
	@$(BIN)/python tools/mutants.py $(if $(SAMPLE),--sample "$(SAMPLE)") $(if $(SEED),--seed "$(SEED)") $(ROOMS)

crds: setup ## Write the CustomResourceDefinitions of the chart and their reference page from the Python types
	@$(BIN)/python -m controller.resources.crds

constraints: setup ## Resolve the newest versions that pyproject.toml allows into constraints.txt
	@tools/resolve_constraints.sh

setup: $(VENV)/.installed $(VENV)/.wire

# Python itself is the one thing that cannot be installed from here.
$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py
	@tools/setup_venv.sh "$(VENV)"
	@touch $@ $(VENV)/.wire

$(VENV)/.wire: $(VENV)/.installed tools/generate_wire.py $(PROTOS) $(if $(wildcard wire/__init__.py),,FORCE)
	@$(BIN)/python tools/generate_wire.py
	@touch $@

FORCE:

clean: ## Remove everything that was made here, .venv included
	rm -rf $(VENV) wire mutants build dist out .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name what; do printf '  make %-13s %s\n' "$$name" "$$what"; done
