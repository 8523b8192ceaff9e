# Every target makes the virtual environment first; nothing else is needed than Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The pinned versions are those that were tested on Python 3.11.
PINS := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info[:2] == (3, 11) else "")')
DEMO ?= runs/demo
WORKERS ?= 2
# A test that hangs is ended after so many seconds, with the stacks of all threads, and fails.
LIMIT = -o faulthandler_exit_on_timeout=true -o faulthandler_timeout

.PHONY: demo test test-slow parity mutants lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/podvision demo --output $(DEMO)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(LIMIT)=400 -n $(WORKERS) --dist worksteal -m "not parity and not slow and not tpu" tests

# What costs more than it would be worth at every change.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest $(LIMIT)=900 -n $(WORKERS) --dist worksteal -m "slow and not parity and not tpu" tests

parity: $(VENV)/.parity $(VENV)-tpu/.installed
	$(BIN)/python -m pytest $(LIMIT)=900 -m parity tests
	$(VENV)-tpu/bin/python -m pytest $(LIMIT)=1800 -m tpu tests

# Plants single faults and says which of them the tests do not notice.
mutants: $(VENV)/.installed
	$(BIN)/python -m tests.mutants --workers $(WORKERS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.parity
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/jepa3d.py
	$(BIN)/python benchmarks/splats.py

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS) -e '.[test]'
	touch $@

$(VENV)/.parity: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS) -e '.[test,parity]'
	touch $@

# Apart from the others: where libtpu is installed, jax looks for a TPU at every start and complains.
$(VENV)-tpu/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(VENV)-tpu/bin/python || $(PYTHON) -m venv $(VENV)-tpu
	$(VENV)-tpu/bin/python -m pip install --quiet --disable-pip-version-check $(PINS) -e '.[test,tpu]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-tpu build *.egg-info
