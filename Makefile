# make setup | demo | test | lint | gpu | clean. Everything runs in .venv, which setup makes; gpu also without.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-fast lint format gpu clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; name a Python 3.11 or 3.12 as make setup PYTHON=…"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@# TensorRT-RTX exists for Linux and Windows on x86-64 only; without it engine=tensorrt is left out
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[tensorrt]' || echo "note: no TensorRT-RTX for this machine; engine=tensorrt is left out"
	touch $(READY)

demo: setup
	$(BIN)/python -m pipeline +experiment=kraken_tp4

test: setup
	@# what starts ranks, Ray or DVC needs the cores for itself
	HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/unit tests/contract -n auto
	HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/integration

test-fast: setup
	HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/unit tests/contract -n auto -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# a machine with a GPU has its own torch: what is needed of it is said in one line (docs/gpu.md)
GPU_PYTHON = $(or $(wildcard $(BIN)/python),$(if $(filter file,$(origin PYTHON)),python3,$(PYTHON)))

gpu:
	@$(GPU_PYTHON) -m benchmarks.gpu

clean:
	rm -rf runs trained data engines results/demo results/small_gpu results/paper report mlflow.db* mlartifacts
