# make run      fit the default model on the cookies; ARGS="..." is passed on
# make test     all tests except the slow ones; ARGS="-m unit" selects the fast layer, ARGS="..." is passed to pytest
# make ui       the MLflow UI of the runs so far
# make check    lint, format and types
# make lock     recompile requirements.lock and requirements-ray.lock from pyproject.toml
# make bench    seconds per stage, cold, warm and with other priors
python := .venv/bin/python
ARGS :=
compile = $(python) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.12 --upgrade \
	--generate-hashes --no-emit-index-url --no-header --quiet

.PHONY: run test ui check lock bench

run: .venv/ready
	@$(python) -m poolwise.run $(ARGS)

test: .venv/ready
	@$(python) -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile $(ARGS)

ui: .venv/ready
	@$(python) -m poolwise.ui $(ARGS)

check: .venv/ready
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

lock: .venv/ready
	@$(compile) --extra launchers --extra optuna --output-file requirements.lock
	@$(compile) --extra ray --output-file requirements-ray.lock

bench: .venv/ready
	@$(python) tests/bench.py $(ARGS)

.venv/ready: requirements.lock pyproject.toml setup.sh
	@PYTHON="$(PYTHON)" sh setup.sh
