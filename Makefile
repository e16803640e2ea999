# make run      fit the default model on the cookies; ARGS="..." is passed on
# make test     all tests except the slow ones; ARGS="-m unit" selects the fast layer, ARGS="..." is passed to pytest
# make ui       the MLflow UI of the runs so far
# make check    lint, format and types
# make lock     recompile requirements.lock, requirements-ray.lock and requirements-bench.lock from pyproject.toml
# make bench    speed beside other samplers, cost against rows, groups and devices; ARGS="engines" for a part of it
python := .venv/bin/python
ARGS :=
compile = $(python) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.12 \
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
	@$(compile) --upgrade --extra launchers --extra optuna --output-file requirements.lock
	@$(compile) --upgrade --extra ray --output-file requirements-ray.lock
	@cp requirements.lock requirements-bench.lock  # its versions are kept where the peers allow them
	@$(compile) --extra bench --output-file requirements-bench.lock

bench: .venv-bench/ready
	@PYTHONPATH=tests .venv-bench/bin/python -m bench $(ARGS)

.venv/ready: requirements.lock pyproject.toml setup.sh
	@PYTHON="$(PYTHON)" sh setup.sh

.venv-bench/ready: requirements-bench.lock pyproject.toml setup.sh
	@PYTHON="$(PYTHON)" sh setup.sh .venv-bench requirements-bench.lock || { \
		echo "setup: not all of requirements-bench.lock installs here; the bench names what is missing" >&2; \
		PYTHON="$(PYTHON)" sh setup.sh .venv-bench requirements.lock; }
