# Every target creates .venv itself. A machine needs Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# A PyTorch build without CUDA. Other versions would download gigabytes that no test uses.
TORCH := torch==2.13.0
BACKENDS := jax tensorflow torch
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONHASHSEED := 0

.PHONY: help demo dev check test test-jax test-tensorflow test-torch test-lowest lint types docs bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.poise  ## run a study on real data and print where the report is
	$(BIN)/poise study diabetes --out runs/diabetes --force

dev: .venv/.dev  ## an editable install with everything that development needs
	@echo "Run 'source $(BIN)/activate', or use $(BIN)/python."

# The tests on JAX spend most of their time in compilation. So keep the compiled programs, and compile with few
# optimizations: level 1 for the tests in LONG, which train longer, and level 0 for the others. (test-lowest uses neither:
# the cache of JAX 0.5 can crash, and that target compiles as users do.)
LONG := tests/docs tests/cli tests/study/test_run.py
QUICK := --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level
check test-jax test-tensorflow test-torch: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.venv/.compiled
check test-jax test-tensorflow test-torch: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
check test-jax test-tensorflow test-torch: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1
test-tensorflow test-torch: export XLA_FLAGS := $(QUICK)=1
check test-jax: export XLA_FLAGS := $(QUICK)=0

check: lint types  ## lint, types and the fast tests on JAX: the loop for daily work
	KERAS_BACKEND=jax $(PYTEST) -m "not slow" --durations=10

test: .venv/.dev  ## lint, types, docs, all tests on JAX, and those that can differ on TensorFlow and PyTorch
	@$(MAKE) --no-print-directory --jobs=3 lint types docs
	@set -e; for backend in $(BACKENDS); do $(MAKE) --no-print-directory test-$$backend; done

test-jax: .venv/.dev  ## all tests on JAX
	@echo "== tests on jax"
	KERAS_BACKEND=jax XLA_FLAGS="$(QUICK)=1" $(PYTEST) --durations=10 $(LONG)
	KERAS_BACKEND=jax $(PYTEST) --durations=20 $(addprefix --ignore=,$(LONG))

test-tensorflow test-torch: test-%: .venv/.dev  ## the tests that can differ on another backend
	@echo "== tests on $*"
	KERAS_BACKEND=$* $(PYTEST) --durations=20

# The lower bounds in pyproject.toml, without TensorFlow and PyTorch, from an installed wheel.
LOWEST := docs/test_plain_install.py test_optimizer.py test_keras_internals.py penalties/test_oracles.py \
	path/test_stages.py compaction/test_behavior.py study/test_scores.py study/test_tasks.py
test-lowest: .venv-lowest/.tests  ## the core tests on JAX with the lowest supported versions
	.venv-lowest/bin/python -m pytest -q -n 2 $(addprefix tests/,$(LOWEST))
	.venv-lowest/bin/poise study diabetes --penalty l2 --strengths 3 --cv 2 --max-iter 20 --out runs/lowest --force --quiet
	KERAS_BACKEND=jax .venv-lowest/bin/uv run --quiet --isolated --no-project --python .venv-lowest/bin/python \
		--resolution lowest-direct --refresh-package poise --with '.[optax]' \
		--with pytest==8.3 --with pytest-xdist==3.6.1 --with hypothesis==6.100 \
		python -m pytest -q -n 2 $(addprefix tests/optax_training/,test_optax_steps.py test_optax_messages.py)

lint: .venv/.dev  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev  ## types of src and tests
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/.dev  ## the documentation, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/.dev  ## the ratios that README and docs quote
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/step.py --all
	$(BIN)/python benchmarks/torch_step.py
	$(BIN)/python benchmarks/torch_prune.py
	$(BIN)/python benchmarks/shrink.py
	$(BIN)/python benchmarks/survival.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/truth.py
	$(BIN)/python benchmarks/study.py
	$(BIN)/python benchmarks/compact.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scale.py

clean:  ## remove everything that make created
	rm -rf .venv .venv-lowest site dist runs

.venv/.pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.poise: .venv/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/.poise
	$(BIN)/python -m pip install --quiet $(TORCH) tensorflow-cpu --group dev
	touch $@

.venv-lowest/.tests: pyproject.toml $(shell find src -type f -name '*.py' -o -type f -path '*templates*')
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --reinstall-package poise .
	.venv-lowest/bin/uv pip freeze --python .venv-lowest --exclude poise > .venv-lowest/lowest.txt
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --constraint .venv-lowest/lowest.txt \
		hypothesis pyproximal pytest pytest-xdist skglm
	touch $@
