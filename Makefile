# Every target makes what it needs: `make demo` and `make test` are all a newcomer has to know.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
# Most tests wait more than they compute, so twice as many processes as a small machine has cores.
TEST_PROCESSES ?= 4
BIN := $(VENV)/bin
# Which tests, such as tests/engine, all by default; of a part nobody asks whether it covers all.
TESTS ?=

.PHONY: help env system demo demo-files test pictures lint messages docs bench serve dist smoke clean

help:
	@echo "make demo        send 27 004 real flights through a batch, on SQLite"
	@echo "make demo-files  send a file of payments to a bank, until it and the ledger agree, on SQLite"
	@echo "make test        run every test; starts and stops the services it needs"
	@echo "make pictures    take the pictures of the documentation anew"
	@echo "make lint        ruff, mypy, import-linter, missing migrations"
	@echo "make messages    gather the texts of the pages and compile their German"
	@echo "make docs        build the documentation into var/docs, warnings being errors"
	@echo "make bench       run every benchmark; starts its own PostgreSQL, and installs the peers it is compared with"
	@echo "make serve       a demo site with samples and workers, at http://127.0.0.1:$(PORT)/"
	@echo "make dist        build wheel and sdist"
	@echo "make smoke       try the wheel in an empty Django project"

# pip reads dependency groups since 25.1, so the first step is a pip that can.
$(VENV)/.made: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.13")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

env: $(VENV)/.made

# What some tests need and pip does not have. Where it cannot be installed it is named, and all other tests run.
system: env
	$(BIN)/python -m tests.programs --install

demo: env
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py demo

demo-files: env
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py demo_files

test: SHARED = --numprocesses $(TEST_PROCESSES) --dist loadgroup $(TESTS)
test: system
	$(BIN)/coverage erase
	@failed=0; set -x; \
	$(BIN)/python -m pytest $(SHARED) --cov --cov-report= || failed=1; \
	ALYA_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(SHARED) -m sqlite --cov --cov-append --cov-report= \
		$(if $(TESTS),|| [ $$? = 5 ]) || failed=1; \
	$(if $(TESTS),,$(BIN)/coverage report --fail-under=100 || failed=1;) \
	$(BIN)/python -m tests.programs; \
	exit $$failed

pictures: system
	ALYA_PICTURES=docs/images $(BIN)/python -m pytest --quiet tests/browser/test_pictures.py -k documentation

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

# GNU gettext is needed here alone: the compiled catalogue is part of the package, and of the checkout.
messages: LOCALE = alya_django/locale/de/LC_MESSAGES/django
messages: env
	cd alya_django && $(abspath $(BIN))/django-admin makemessages --locale de --add-location file --no-wrap --no-obsolete
	sed -i '/^"POT-Creation-Date/d' $(LOCALE).po
	msgfmt --check-format --statistics --output-file $(LOCALE).mo $(LOCALE).po

docs: env
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs var/docs
	@echo "The documentation is in var/docs/index.html"

bench: env
	$(BIN)/python -m benchmarks.submit
	$(BIN)/python -m benchmarks.intake
	$(BIN)/python -m benchmarks.fuzz --minutes 1
	$(BIN)/python -m benchmarks.throughput --processes 1
	$(BIN)/python -m benchmarks.throughput --processes 2
	$(BIN)/python -m benchmarks.throughput --processes 2 --atomic
	$(BIN)/python -m benchmarks.throughput --processes 2 --rows 1000000 --rounds 3
	$(BIN)/python -m benchmarks.throughput --processes 2 --history 10000000 --rounds 3
	$(BIN)/python -m benchmarks.finish
	$(BIN)/python -m benchmarks.year
	$(BIN)/python -m benchmarks.prune
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.fairness
	$(BIN)/python -m benchmarks.idle
	$(BIN)/python -m benchmarks.verbs --minutes 1
	$(BIN)/python -m benchmarks.recovery
	$(BIN)/python -m benchmarks.chaos
	$(BIN)/python -m benchmarks.watch
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.admin
	$(BIN)/python -m benchmarks.peers

serve: env
	$(BIN)/python manage.py serve --port $(PORT)

dist: env
	rm -rf dist
	$(BIN)/python -m build --outdir dist

smoke: dist
	$(BIN)/python -m tests.smoke dist/*.whl

clean:
	rm -rf $(VENV) .tox dist var .mypy_cache .pytest_cache .ruff_cache
