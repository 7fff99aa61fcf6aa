# Every command a person needs. `make help` explains them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# The environment is made anew when a pin or a console script changes.
VENV_KEY := $(VENV)/.made-from-$(shell cat requirements/*.txt pyproject.toml devcluster/pyproject.toml | sha256sum | cut -c1-16)
# Which development cluster the commands below mean.
NAME ?= dev
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help
help: ## Explain every target
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: init
init: $(VENV_KEY) ## Make the Python environment in .venv from the pinned requirements

$(VENV_KEY):
	@command -v python3 >/dev/null || { echo "python3 is missing: apt-get install -y python3 python3-venv" >&2; exit 2; }
	@echo "making $(VENV) from requirements/dev.txt" >&2
	@rm -rf $(VENV)
	@python3 -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e . -e devcluster
	@touch $@

.PHONY: check
check: init ## Format, lint, types, import contracts and unit tests; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit $(PYTEST_ARGS)

.PHONY: format
format: init ## Write the formatter's and the linter's safe corrections
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: init ## Every test, on a real Postgres and a real Kubernetes; installs what is missing
	$(BIN)/devcluster prepare
	$(BIN)/python -m tests.layers $(PYTEST_ARGS)

.PHONY: test-unit test-db test-kube test-contract test-cluster test-e2e
test-unit: init ## The unit layer alone
	$(BIN)/pytest tests/unit $(PYTEST_ARGS)
test-db: init ## The database layer alone
	$(BIN)/pytest tests/db $(PYTEST_ARGS)
test-kube: init ## The kube layer alone: dispatcher and reconciler on a real cluster and a real Postgres
	$(BIN)/pytest tests/kube $(PYTEST_ARGS)
test-contract: init ## The contract layer alone: charts against their schemas and Kubernetes' own
	$(BIN)/pytest tests/contract $(PYTEST_ARGS)
test-cluster: init ## The cluster layer alone
	$(BIN)/pytest tests/cluster $(PYTEST_ARGS)
test-e2e: init ## The end-to-end layer alone: a real shop
	$(BIN)/pytest tests/e2e $(PYTEST_ARGS)

.PHONY: up
up: init ## All of Storeplane, installed on a development cluster; prints where the API is
	@$(BIN)/python -m demo up --name '$(NAME)'

.PHONY: down
down: init ## End everything that any command here has started, the kept test cluster included
	@$(BIN)/devcluster down --all

.PHONY: env
env: ## Print exports for the shell: eval "$(make -s env)"
	@$(BIN)/python -m demo env --name '$(NAME)'

.PHONY: settings
settings: ## Print exports for a `storeplane serve` on this machine: eval "$(make -s settings)"
	@$(BIN)/python -m demo settings --name '$(NAME)'

.PHONY: images
images: init ## Build the container images that changed and load them into the cluster in use
	@$(BIN)/devcluster images --name '$(NAME)'

.PHONY: demo
demo: init ## A fresh machine to the products of real shops; ENGINE=medusa or woocommerce for one alone
	@$(BIN)/python -m demo order --name '$(NAME)' $(foreach engine,$(ENGINE),--engine '$(engine)')

.PHONY: bench
bench: init ## Measure the cluster; prints one table
	@$(BIN)/python bench/cluster.py

.PHONY: bench-dispatch
bench-dispatch: init ## Measure the dispatcher: request to Job to done, its cost and its rates, each beside its target
	@$(BIN)/python bench/dispatch.py --name bench $(BENCH_ARGS)

.PHONY: bench-shop
bench-shop: init ## Measure a shop: request to products, phase by phase, beside the same chart by hand; and its removal
	@$(BIN)/python bench/shop.py $(BENCH_ARGS)

.PHONY: bench-many
bench-many: init ## Measure ten shops of both engines ordered at once by two users, and what they keep at rest
	@$(BIN)/python bench/many.py $(BENCH_ARGS)

.PHONY: lock
lock: init ## Resolve requirements/*.in anew into hashed pins without addresses
	@for layer in bootstrap controlplane provisioner devcluster dev; do \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate requirements/$$layer.in -o requirements/$$layer.txt; done
