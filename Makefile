# On a bare machine, start with: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := --constraint constraints.txt --editable '.[dev]'

.PHONY: help demo test fuzz coverage bare check format install montage figures report speed docs dist clean

help:                            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  \1\t/' | expand -t 14

install: .venv/installed         ## a virtual environment in .venv, with all extras

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(INSTALL) || \
		$(BIN)/python -m pip install --quiet $(INSTALL)
	touch $@

demo: .venv/installed            ## train two models on real digits and write report/index.html
	$(BIN)/foveal demo --out report

test: .venv/installed            ## the whole test suite; FOVEAL_DATA adds the full datasets
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

coverage: .venv/installed        ## test coverage per module; fails below 94 %
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

bare:                            ## test the package without extras, in a temporary environment
	tools/bare.sh $(PYTHON)

fuzz: .venv/installed            ## hostile models, recipes, images and requests; make test runs a tenth of them
	FOVEAL_FUZZ=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/fuzz

check: .venv/installed           ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

montage: .venv/installed         ## fixed images under every zoo model, for visual review
	$(BIN)/python tools/montage.py --out report/montage.png

figures: .venv/installed         ## regenerate the tables and pictures of README and docs
	$(BIN)/python tools/figures.py
	$(BIN)/python tools/families.py
	$(BIN)/python tools/architecture.py

report: .venv/installed          ## measure the shipped models again, for docs/report.md
	$(BIN)/python benchmarks/experiments/report.py

speed: .venv/installed           ## seconds to 98 % on MNIST, compared with the original project
	$(BIN)/python benchmarks/performance/speed.py

docs: .venv/installed            ## build the documentation site in report/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: .venv/installed            ## build and check wheel and sdist in dist/
	rm -rf dist
	$(BIN)/python -m build --installer uv
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/dist.py

clean:                           ## remove the environment and everything built
	rm -rf .venv report runs dist
