# Everything runs in .venv, made on first use from Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint format gpu-test bench

demo: .venv/installed
	$(BIN)/python examples/sample.py demo/in
	$(BIN)/colordaemon once --overwrite -o demo/out demo/in/portrait.png demo/in/film.mkv
	@echo "The colored photo and film are in demo/out; their gray sources are in demo/in."

# Tests of clusters share one, and have all cores. Of the others there is a process for each core;
# worksteal keeps those that share a fixture together.
test: .venv/installed
	$(BIN)/python -m pytest -m cluster
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not cluster"

gpu-test: .venv/installed
	COLORDAEMON_REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu

# make bench, or make bench FILMS="one.mp4 two.mkv"
bench: .venv/installed
	$(BIN)/colordaemon bench $(FILMS)

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
