# `make demo` and `make test` need nothing but Python >= 3.10, pip, and a network: .venv makes itself.

PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= rtx,examples,test,lint
RESULT ?= benchmarks/results/test-gpu.json

# The stamp is named after the extras, so that other extras are installed when they are asked for.
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

# PY=python3 uses the packages of that Python as they are, and neither makes nor touches .venv.
ifeq ($(origin PY),undefined)
PY    := $(VENV)/bin/python
READY := $(STAMP)
else
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-gpu mutate lint format bench clean distclean $(VENV)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: PYTHON=python3.12 (makes .venv), EXTRAS=tensorrt,test (installs them), PY=python3 (no .venv)"

$(VENV): $(STAMP)

# pip moves an environment that exists to the pinned versions; a new one is made only where there is none.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("trtcompile needs Python 3.10 or newer, not " + sys.version.split()[0] + ": choose one with make PYTHON=python3.12")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: $(READY)  ## train VGG16, calibrate, compile to INT8; 2 CPU cores, no GPU
	$(PY) examples/cifar10_vgg/train.py --data digits --width 0.25 --output build/demo/vgg16.pt
	$(PY) examples/cifar10_vgg/quantize.py --checkpoint build/demo/vgg16.pt --output build/demo

test: $(READY)  ## every test that needs no GPU
	$(PY) -m pytest -n 2 -m "not gpu" $(ARGS)

test-full: $(READY)  ## the same, and a sweep over PyTorch's database of operator samples; an hour
	$(PY) -m pytest -n 2 -m "not gpu" --sweep $(ARGS)

test-gpu: $(READY)  ## every test that runs an engine; a skip is a failure; writes benchmarks/results/test-gpu.json
	$(PY) -m pytest -m "gpu or engine" --require-gpu --summary=$(RESULT) $(if $(COMMIT),--commit=$(COMMIT)) $(ARGS)

mutate: $(READY)  ## break the code on purpose; every mutation must fail its tests
	$(PY) tests/mutate.py $(ARGS)

lint: $(READY)  ## ruff and mypy --strict, changing nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict trtcompile

format: $(READY)  ## ruff's fixes and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY)  ## latency rows as JSON; needs a GPU
	$(PY) benchmarks/latency.py $(ARGS)

clean:  ## what builds and tests leave behind; keeps .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find trtcompile tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## also .venv
	rm -rf $(VENV)
