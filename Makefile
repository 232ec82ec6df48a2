# A fresh clone needs python3 (3.11 to 3.13) with venv, and make; each target installs what it takes into .venv.
PYTHON ?= python3
PEERS ?= peers
BIN := .venv/bin

.PHONY: demo test thorough lint docs bench
.DELETE_ON_ERROR:

# Trains a small model from its recipe, publishes it, loads it back and shows it among the zoo's models of the same data;
# and draws in colour with one that the zoo has.
demo: .venv/.installed
	$(BIN)/genzoo fit --config digits/vae --trainer.callbacks.to runs/demo/entry
	$(BIN)/genzoo sample runs/demo/entry --out runs/demo/samples.png
	$(BIN)/genzoo compare digits runs/demo/entry --out runs/demo/page.html
	$(BIN)/genzoo sample emoji/flow-matching --num_samples 64 --out runs/demo/emoji.png
	$(BIN)/python docs/demo.py runs/demo/entry

# What has to pass before a change goes in: one process a core, of one thread, since small tensors gain nothing from more.
# In the order of their names: files with few tests, which xdist would keep for the end, can take the longest.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
test: lint
	$(PYTEST) -m "not thorough and not slow and not gpu"

# And more cases of the same kinds: before a release, or where a change goes deep.
thorough: lint
	$(PYTEST) -m "not slow and not gpu"

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Everything beside bare loops and peers, in one table; QUICK=1 in ten minutes. PEERS has clones of those without a package.
bench: .venv/.installed-bench
	$(BIN)/python -m benchmarks --peers $(PEERS) $(if $(QUICK),--quick)

# The stamp says which extras are installed, so that the second call is quick.
.venv/.installed: pyproject.toml setup.py | .venv
	$(BIN)/pip install --editable .
	touch $@

.venv/.installed-%: pyproject.toml setup.py | .venv
	$(BIN)/pip install --editable ".[$*]"
	touch $@

.venv:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("genzoo takes Python 3.11 to 3.13: say PYTHON=python3.12")'
	$(PYTHON) -m venv $@ || { rm -rf $@; exit 1; }
