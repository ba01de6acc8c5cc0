# The door: everything below installs what it needs into .venv first, and only when requirements.lock changed.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
# Compiled once and kept: each test process and each server that a test starts would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=
# A test that hangs shows where after two minutes, and cannot hold the run for ever. Tests that follow each other stay in
# one process, so that the servers they share are started once; a process that is done takes over half of what is left.
PYTEST := timeout --foreground 3000 $(BIN)/pytest -q -n 3 --dist worksteal -o faulthandler_timeout=120
# What asks a server from outside, whatever it is made of.
CLUSTERED := tests/conformance tests/e2e/test_pagination.py tests/e2e/test_conversation.py \
	$(addprefix tests/interop/test_,sipp_server.py sipp_depth.py baresip.py kamailio.py path.py sip_domain.py trunk.py \
	smpp_server.py)
CONFIG ?=
FAULTS ?=
RUNS ?=

.PHONY: help install demo cluster chaos run test test-all test-cluster check format soak bench docs lock clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## .venv as requirements.lock says
	@scripts/python-setup.sh

demo: install ## a carrier, a handset and Trunkline on this machine, to try out; ONCE=1 runs through it once and ends
	@$(BIN)/python -m trunkline.testing.demo $(if $(ONCE),--once)

cluster: install ## three zones of engines and nodes on this machine, as root or by sudo; ARGS="..." (lab/)
	@$(if $(filter 0,$(shell id -u)),,sudo )$(BIN)/python -m lab cluster $(ARGS)

chaos: install ## faults under load in such a cluster; FAULTS=a,b (default: all) RUNS=5 ARGS="..."
	@$(if $(filter 0,$(shell id -u)),,sudo )$(BIN)/python -m lab chaos --faults "$(FAULTS)" --runs $(or $(RUNS),5) $(ARGS)

run: install ## the server, with CONFIG=trunkline.toml if given, else the development profile
	@$(BIN)/trunkline $(if $(CONFIG),--config $(CONFIG) serve,dev)

test: install ## every test but the slow ones
	@scripts/test-setup.sh
	@$(PYTEST) -m "not slow"

test-all: install ## the slow ones too, then test-cluster
	@scripts/test-setup.sh
	@$(PYTEST)
	@$(MAKE) --no-print-directory test-cluster

test-cluster: install ## the suites of API, SDKs and SIP against three nodes as against one; NODES=3 ARGS="..."
	@TRUNKLINE_TEST_CLUSTER=$(or $(NODES),3) scripts/test-setup.sh
	@TRUNKLINE_TEST_CLUSTER=$(or $(NODES),3) $(PYTEST) -n 1 -m "not slow" $(or $(ARGS),$(CLUSTERED))

check: install ## lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install ## write the code as `check` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

soak: install ## a server under steady load for MINUTES=10: exit status 1 if anything grows
	@$(BIN)/trunkline soak --minutes $(or $(MINUTES),10) $(ARGS)

bench: install ## messages beside Kannel, or NAME=queued alone (bench/README.md); QUICK=1 in 90 s; ARGS="..." for it
	@if [ -n "$(NAME)" ] && [ -f "bench/$(NAME).py" ]; then $(BIN)/python -m bench.$(NAME) $(ARGS); \
	else $(BIN)/python -m bench.sms $(NAME) $(if $(QUICK),--quick) $(ARGS); fi

docs: install ## the reference pages that are made from the code
	@$(BIN)/python -m trunkline.settings.reference docs/reference/settings.md
	@$(BIN)/python -m trunkline.features docs/reference/features.md

lock: install ## requirements.lock from pyproject.toml; UPGRADE=1 takes the newest of everything
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-config --custom-compile-command "make lock" --quiet \
		$(if $(UPGRADE),--upgrade) -o requirements.lock
	@scripts/python-setup.sh

clean: ## what was built here; data in ./var stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist tests/conformance/node/node_modules
