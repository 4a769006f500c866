# The project's commands; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo up test check unit faults secured fuzz broken bench bench-quick metrics lock sbom clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY) ## 5,000 users request coupons on the real system, then the proof
	@$(BIN)/python -m demo $(DEMO)

up: $(READY) ## the local stack and every process in the foreground
	@$(BIN)/python -m stack up

test: check ## lint, types, import contracts, all tests on real servers, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(READY) ## the pure tests alone, in seconds
	$(BIN)/python -m pytest tests/unit

faults: $(READY) ## every row of the matrix of faults; FAULTS='--seed 7 --rows 14,15' to choose rows
	$(BIN)/python -m pytest tests/faults --rows all $(FAULTS)

secured: $(READY) ## sales on servers with TLS, passwords and exactly the documented rights, and the proof
	$(BIN)/python -m pytest tests/acceptance/test_secured.py tests/integration/test_secured_servers.py --rows all

fuzz: $(READY) ## many generated requests against the contract of the API; FUZZ='--generated-examples 2000' for more
	$(BIN)/python -m pytest tests/integration/test_api_contract.py --generated-examples 300 $(FUZZ)

broken: $(READY) ## remove each guard from a copy and check that its test fails
	$(BIN)/python -m tests.broken

bench: $(READY) ## all measurements, 25 minutes; BENCH='--publish' writes them into docs/, '--against REV' compares commits
	$(BIN)/python -m benchmarks $(BENCH)

bench-quick: $(READY) ## a subset in four minutes
	$(BIN)/python -m benchmarks --quick $(BENCH)

metrics: $(READY) ## write docs/metrics.md from the list of metrics in the code
	$(BIN)/python -m service.metrics_document

lock: $(READY) ## resolve the Python packages again and write the lock files
	$(BIN)/uv pip compile pyproject.toml $(LOCK) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group stack --group demo --group test --group lint --group bench --group build $(LOCK) -o requirements-dev.lock

LOCK := --quiet --extra tracing --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url

sbom: $(READY) ## write .stack/sbom.json: the packages of requirements.lock as a CycloneDX document
	@mkdir -p .stack
	$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible -o .stack/sbom.json requirements.lock

clean: ## remove the environment and the local stack's state
	rm -rf $(VENV) .stack

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)
