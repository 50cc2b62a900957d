# make run: set up, then train the default recipe.   make test: set up, then test.
# The first Python there is that will do; `make PYTHON=…` names another.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3.14 python3,\
	$(shell $(python) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $(python))))
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check bench docs versions clean

run: $(VENV)/installed
	$(BIN)/truerisk train

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

check: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# The documentation site, in site/; needs no network once it is installed.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# The suite's short part with the lowest versions that pyproject.toml allows, and with the newest.
versions: $(VENV)/installed
	$(BIN)/python -m tests.versions lowest newest next

# Made anew when the requirements change, so that `git pull` needs no other command.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || \
		{ echo "no Python of 3.11 or above was found: install one, or name it by make PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
