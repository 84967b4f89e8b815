# Every target sets up what it needs: Python 3.11 to 3.13, pip and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SWEEP ?= model.n_states=2,3,4,5 features=v1,v2,range
EXTRAS ?= dev,docs,optuna,parallel,slurm,server
PYTEST ?= -n auto --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The pip that Python 3.11 brings takes twice as long to find the packages.
ENVIRONMENT = $(PYTHON) -m venv $(VENV) && $(PIP) --upgrade pip

# For a sweep pip leaves modules as they are: Python compiles those it loads, a third of all.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help sweep test test-fast check format ui server docs gallery bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

sweep: $(VENV)/run.stamp ## Run the README sweep on the synthetic market (SWEEP="..." for another)
	$(BIN)/python -m hmm_exp.train -m $(SWEEP)

ui: $(VENV)/run.stamp ## Compare runs in the MLflow UI on http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1

server: $(VENV)/server.stamp ## Serve a shared store on http://127.0.0.1:5000: MLflow over PostgreSQL
	@exec $(BIN)/hmm-server $(SERVER)

test: $(VENV)/dev.stamp ## Run all tests, slow ones included, on all cores (PYTEST="" for one)
	$(BIN)/python -m pytest $(PYTEST)

test-fast: $(VENV)/dev.stamp ## Run the tests that take no more than seconds
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/dev.stamp ## Format, lint, types, manual and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs
	$(MAKE) test

format: $(VENV)/dev.stamp ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp ## Build the manual into site/, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

gallery: $(VENV)/dev.stamp ## Renew the pictures and the notebook of the manual
	$(BIN)/python docs/tools/make_gallery.py

bench: $(VENV)/dev.stamp ## List the measuring programs, see benchmarks/README.md
	@ls benchmarks/*.py | sed 's|^|$(BIN)/python |'

clean: ## Remove the environment and caches; runs and models stay
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/run.stamp: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	$(PIP) --no-compile -e .
	@touch $@

$(VENV)/server.stamp: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	$(PIP) -e '.[server]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	$(ENVIRONMENT)
	$(PIP) -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/run.stamp $(VENV)/server.stamp
