# Tenure's front door. Needs Python 3.11 or newer and make; everything else is installed into .venv by itself.
#
#   make test TESTS=tests/unit ARGS="-x -k lease"    these tests only, with these pytest arguments
#   make test JOBS=8                                 tests run in so many processes (all: cores + 1; chosen ones: 0)
#   make chaos SEEDS=50                              a table of faults and recoveries (docs/chaos.md)
#   make demo ARGS="--trials 12 --no-chaos"          arguments of `tenure demo`
#   make setup PYTHON=python3.13                     another Python than the first found
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup    torch without CUDA: 2 GB less

VENV ?= .venv
BIN := $(VENV)/bin
export VENV PYTHON
# Tests start the package hundreds of times: where byte code is not to be written, each would compile it anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test ops-test lint proto compat chaos simulate mutants acceptance model bench bench-checkpoint docs dashboard-images clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## create .venv with all that development needs (the other targets do it by themselves)
	@scripts/setup test

demo: ## a real architecture search through an embedded store, with a worker and the master killed on the way
	@scripts/setup demo
	@$(BIN)/tenure demo $(ARGS)

ifdef TESTS
test: setup
else
test: lint
endif
test: ## lint, then all tests (TESTS=… only those, without lint; ARGS=… for pytest)
	@$(BIN)/pytest -n $(or $(JOBS),$(if $(TESTS),0,auto)) --dist worksteal $(TESTS) $(ARGS)

ops-test: setup ## dashboards, alerts, scripts, units, deployments, the console, with a real Prometheus, systemd and Chromium (installed where missing)
	@scripts/install_tools
	@$(BIN)/pytest -n $(or $(JOBS),auto) --dist worksteal -m 'tools or not tools' tests/ops $(ARGS)

lint: setup ## style, format, types, generated files
	@$(BIN)/python scripts/lint.py

proto: setup ## regenerate the gRPC stubs from proto/*.proto
	@$(BIN)/python scripts/compile_protos.py

docs: setup ## regenerate the pages that are made from tables in the code
	@for generator in scripts/generate_*.py; do $(BIN)/python "$$generator" || exit 1; done

dashboard-images: setup ## draw the pictures of docs/dashboards.md anew, of a real search of ten minutes (ARGS="--minutes 5 --folder /tmp/x")
	@PYTHONPATH=tests $(BIN)/python -P -m dashboard_story $(ARGS)

compat: setup ## the protocol and the package on the oldest, newest and middle versions of what they need
	@$(BIN)/pytest -m compat tests/compat $(ARGS)

chaos: setup ## every fault-injection test, the long ones too; SEEDS=50 or 7-9 (MINUTES=… FAULTS=…): that many seeds of chaos
	@$(if $(SEEDS),PYTHONPATH=tests $(BIN)/python -P -m chaos_suite --seeds $(SEEDS) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS),$(BIN)/pytest -m chaos $(ARGS))

simulate: setup ## 10,000 workers, 1,000,000 tasks, the real Lua scripts, virtual time (ARGS=… for it, docs/simulation.md)
	@PYTHONPATH=tests $(BIN)/python -P -m simulation $(ARGS)

mutants: setup ## break the Lua scripts in known ways, and see that tests/stateful notices each (ARGS=… for it)
	@PYTHONPATH=tests $(BIN)/python -P -m stateful.mutants $(ARGS)

acceptance: setup ## faults at their full length (ten minutes without a master, a worker frozen for one): 20 minutes
	@$(BIN)/pytest -m long tests/acceptance $(ARGS)

model: setup ## the protocol, checked exhaustively by spin (ARGS=--help)
	@$(BIN)/python scripts/check_model.py $(ARGS)

bench: setup ## measure Tenure (BENCH=bench/… only that one, ARGS=… for it)
	@for script in $(or $(BENCH),$(wildcard bench/*.py)); do $(BIN)/python "$$script" $(ARGS) || exit 1; done

bench-checkpoint: setup ## what checkpoints cost a training, beside torch.save and beside none: ten minutes (ARGS=--help)
	@$(BIN)/python bench/checkpoint.py $(ARGS)

clean: ## remove the environments, caches and builds that make has created
	@rm -rf $(VENV) .make .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
