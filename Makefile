# Two commands: `make app` opens the page, `make test` runs every test. `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
# Installed first, and exactly this version, so that the choice of build (CPU, CUDA) is made once and in one place.
# Another build: make app TORCH="torch==2.13.0 --index-url ADDRESS-OF-THE-BUILD"
TORCH  ?= torch==2.13.0
PORT   ?=
# The pretrained model that the default checkpoint is made of: 98 MB, fetched once and verified.
BASE   ?= smollm2-135m
# Files of tests run beside each other, one more than there are processors, at most four: a third of the time of two
# is spent waiting for browsers and launched processes. WORKERS= runs them one after the other.
WORKERS ?= -n $(shell $(PYTHON) -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))") --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help app test lint bench bench-gpu assets assets-gsm8k clean
.DEFAULT_GOAL := help

help:
	@echo "make app [PORT=8501]   install into $(VENV), fetch the pretrained model, and open the app"
	@echo "make test [ARGS=...]   install what the tests need and run them all (WORKERS= one after the other)"
	@echo "make lint              ruff and mypy"
	@echo "make bench             compare its speed with what one would run instead: docs/benchmarks.md"
	@echo "make bench-gpu         the same on a CUDA device: docs/benchmarks-gpu.md"
	@echo "make assets            train the tiny checkpoint of the demo anew and evaluate it"
	@echo "make assets-gsm8k      train the default checkpoint on GSM8K anew"
	@echo "make clean             remove $(VENV) and the caches"
	@echo "Variables: PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH=$(TORCH)"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "irl-lens needs Python 3.11 or newer; there is no '$(PYTHON)'."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "irl-lens needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Could not create $(VENV). On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.torch-installed: Makefile | $(BIN)/python
	$(PIP) install --quiet $(TORCH)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch-installed
	$(PIP) install --quiet -e .
	@touch $@

$(VENV)/.test-installed: pyproject.toml $(VENV)/.torch-installed
	$(PIP) install --quiet -e ".[test]"
	@touch $@ $(VENV)/.installed

app: $(VENV)/.installed
	@$(BIN)/irl-lens models fetch $(BASE) || echo "Without it the app opens on the tiny demo; 'make app' tries again."
	@$(BIN)/irl-lens app $(if $(PORT),--port $(PORT))

test: $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.test-installed
	$(BIN)/irl-lens models fetch $(BASE)
	$(BIN)/python -m benchmarks --out docs/benchmarks.md

bench-gpu: $(VENV)/.test-installed
	$(BIN)/python -m benchmarks --gpu --out docs/benchmarks-gpu.md

# The embedded default, from nothing: about an hour on two cores by the estimate of --dry-run. The figures of its model
# card come from the last step.
assets: $(VENV)/.installed
	$(BIN)/irl-lens train demo-irl
	$(BIN)/irl-lens train demo-control
	$(BIN)/irl-lens evaluate --checkpoint demo-irl/final --out runs/demo-evaluation --problems 160 \
	  --compare start=demo-sft/final --compare control=demo-control/final --compare expert=demo-expert/final
	rm -rf assets/demo assets/scored_run && mkdir -p assets/scored_run
	cp -r runs/demo-irl/final assets/demo
	cd runs/demo-evaluation && cp -r run.parquet anchor.parquet perturbed.parquet probes.parquet compare metrics.jsonl \
	  report.json ../../assets/scored_run/
	$(BIN)/irl-lens model-card runs/demo-evaluation assets/demo assets

# The default checkpoint, from a pretrained model and GSM8K (GSM8K=FOLDER with train.jsonl, else from the hub), in
# an hour or more on two cores with AMX (not timed in one go). It can be stopped at any time; the same command goes on.
GSM8K ?= gsm8k
assets-gsm8k: $(VENV)/.installed
	$(BIN)/irl-lens models fetch $(BASE)
	$(BIN)/irl-lens train gsm8k-irl data.source=$(GSM8K) $(if $(wildcard runs/gsm8k-irl),--resume)
	rm -rf assets/gsm8k
	$(BIN)/irl-lens export runs/gsm8k-irl/final assets/gsm8k --to bundle --data gsm8k
	$(BIN)/irl-lens score assets/solutions-gsm8k.jsonl --checkpoint assets/gsm8k --force \
	  --out assets/scored_run_gsm8k/run.parquet

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
