# make run   shows the main job on throwaway data; touches nothing of yours
# make test  runs the tests            make lint  checks style and types
# make bench measures against targets  make proto regenerates the gRPC stubs
#
# Each sets up what it needs by itself, in .venv. PYTHON names another interpreter.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
NODE := tests/e2e/grpc_js
CODE := backpackd client/backpack_client tests docs/examples

.PHONY: run test lint bench proto clean

run: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/examples/tour.sh

test: $(VENV)/.installed-dev $(NODE)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m compileall -q backpackd client proto
	$(BIN)/python tests/bench/run.py

proto: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto \
		--grpc_python_out=proto proto/backpack_proto/*/*.proto

clean:
	rm -rf $(VENV) $(NODE)/node_modules $(NODE)/.installed .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis build dist

# pip of the venv first: older ones do not know --group.
$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m compileall -q backpackd client proto
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

# A gRPC client and a reader of .env that are not ours; without npm their tests skip and say so.
$(NODE)/.installed: $(NODE)/package.json
	@if command -v npm >/dev/null; then \
		npm install --prefix $(NODE) --no-audit --no-fund --no-package-lock --loglevel=error; fi
	@touch $@
