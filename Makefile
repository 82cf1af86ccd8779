# Everything here creates .venv by itself; a machine needs Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# PyTorch without CUDA; a newer version would bring gigabytes that no test uses.
TORCH := torch==2.13.0
BACKENDS := jax tensorflow torch
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONHASHSEED := 0

.PHONY: demo test test-lowest lint bench docs clean
.DEFAULT_GOAL := demo

demo: .venv/.poise  ## the main job on real data
	$(BIN)/poise study diabetes --out runs/diabetes --force

# Tests compile the same small programs again and again, those of a file most of all.
test: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.venv/.compiled
test: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.1
test: lint docs .venv/.tests  ## the tests, on all three backends
	@set -e; for backend in $(BACKENDS); do \
		echo "== the tests on $$backend"; \
		KERAS_BACKEND=$$backend $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20; \
	done

# What pyproject.toml calls the lowest versions, without TensorFlow and PyTorch, as after a plain `pip install poise`.
LOWEST := test_optimizer.py test_inner.py test_identity.py test_saving.py test_rules.py test_layers.py \
	penalties/test_errors.py penalties/test_oracles.py path/test_stages.py path/test_selection.py \
	compaction/test_behavior.py study/test_scores.py docs/test_plain_install.py
test-lowest: .venv-lowest/.tests  ## the core tests on JAX, with the lowest versions of what poise depends on
	.venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile $(addprefix tests/,$(LOWEST))
	.venv-lowest/bin/poise study diabetes --penalty l2 --strengths 3 --cv 2 --max-iter 20 --out runs/lowest --force --quiet

lint: .venv/.tests  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python src/poise

docs: .venv/.tests  ## the documentation, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.tests  ## the ratios that README and docs quote
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/step.py --all
	$(BIN)/python benchmarks/path.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/study.py
	$(BIN)/python benchmarks/compact.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scale.py

clean:
	rm -rf .venv .venv-lowest site dist runs

.venv/.pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.poise: .venv/.pip pyproject.toml $(shell find src -type f -name '*.py' -o -type f -path '*templates*')
	$(BIN)/python -m pip install --quiet .
	touch $@

.venv/.tests: .venv/.poise
	$(BIN)/python -m pip install --quiet $(TORCH) tensorflow-cpu --group test --group lint --group docs
	touch $@

.venv-lowest/.tests: pyproject.toml $(shell find src -type f -name '*.py' -o -type f -path '*templates*')
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --reinstall-package poise .
	.venv-lowest/bin/uv pip freeze --python .venv-lowest --exclude poise > .venv-lowest/lowest.txt
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --constraint .venv-lowest/lowest.txt \
		hypothesis pyproximal pytest pytest-xdist skglm
	touch $@
