# The only commands a newcomer needs. Each can be run again at no cost.
PYTHON ?= python3
BIN := .venv/bin
DEVICE := cpu
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint docs smoke notebooks mutants bench peers clean

demo: .venv/installed  ## install, measure the four reference schemes, build the board
	$(BIN)/bnsuite run --profile quick
	$(BIN)/bnsuite board

test: .venv/installed-dev  ## lint, types, the documentation, a smoke run, a board, all tests
	$(MAKE) --no-print-directory --jobs 2 lint docs smoke
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope --benchmark-disable

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/installed-dev  ## the documentation, in build/docs; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

smoke: .venv/installed-dev
	$(BIN)/bnsuite run --profile smoke --records .venv/smoke/records
	$(BIN)/bnsuite board --records .venv/smoke/records --out .venv/smoke/site

notebooks: .venv/installed-dev  ## execute the notebooks of the documentation again; a few minutes
	$(BIN)/jupyter execute --inplace docs/notebooks/*.ipynb
	$(BIN)/ruff format docs/notebooks

mutants: .venv/installed-dev  ## change engine, protocol and ranking in one place at a time: which change does no test see? Hours
	$(INSTALL) -e '.[mutation]'
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

bench: .venv/installed-dev  ## micro-benchmarks of the engine and of every normalizer
	$(BIN)/python -m pytest benchmarks/micro --benchmark-only

ifeq ($(DEVICE),cuda)
peers: SWEEP := --lanes 64 --width 512
endif
peers: .venv/installed-dev  ## the same jobs by us and by what people use, side by side; how cost grows; DEVICE=cuda for a GPU
	$(BIN)/python benchmarks/peers/serial.py --device $(DEVICE) $(SWEEP)
	$(BIN)/python benchmarks/peers/top_eigenvalue.py --device $(DEVICE)
	$(BIN)/python benchmarks/peers/density.py --device $(DEVICE)
	$(BIN)/python benchmarks/growth.py --device $(DEVICE)
ifeq ($(DEVICE),cuda)
	$(BIN)/python benchmarks/peers/top_eigenvalue.py --device cuda --depths 2 --networks 10 --sides "ours in float64" "eigenthings lanczos" "eigenthings in float32"
else
	$(BIN)/python benchmarks/peers/board.py
endif
	$(BIN)/python benchmarks/peers/time_to_accuracy.py --device $(DEVICE)

clean:  ## remove what was installed and built; records stay
	rm -rf .venv leaderboard/site site build

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bnsuite needs Python 3.11 or newer: got " + sys.version.split()[0] + ". Try make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

# Python compiles a module when it is first imported; compiling all of them takes pip as long as the rest.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch .venv/installed $@
