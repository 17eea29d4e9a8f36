# Every target first makes .venv if it is missing. Nothing has to be installed by hand.
PYTHON ?= python3
DURATION ?=
DEMO_ARGS ?=
TESTS ?= tests
FAULTS ?= tests/faults
BENCHMARKS ?=
SEED ?= 1
PYTHONS ?= 3.10 3.11 3.12 3.13
# The tests wait more than they compute, so five workers keep two cores busy. All tests of a file run on one worker.
# tests/conftest.py sets the order of the files.
WORKERS ?= 5
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# AGAIN=1 runs only what failed last, one test at a time.
AGAIN ?=
LAST_FAILED := --last-failed --last-failed-no-failures none --maxfail 3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The tests start hundreds of processes: each would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo stack dashboards test test-fast test-oldest test-python engines test-nightly coverage mutants faults chaos verl soak fuzz check format docs screenshots detection bench bench-quick performance audit dist release-check clean tools verl-environment

help: ## Show the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	.ci/torch $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tq,instrument,dev]'
	touch $@

demo: $(INSTALLED) ## Run the demo: a real TransferQueue and the exporter; DURATION=30 ends it after 30 s, DEMO_ARGS adds flags.
	$(BIN)/tq-exporter demo $(if $(DURATION),--duration $(DURATION)) $(DEMO_ARGS)

stack: $(INSTALLED) tools ## Run the demo with Prometheus and Alertmanager; DURATION=60 ends it after 60 s.
	$(BIN)/python -m exporter.demo.stack $(if $(DURATION),--duration $(DURATION)) $(DEMO_ARGS)

tools:
	@.ci/tools

verl-environment: $(INSTALLED)
	@.ci/verl

test: $(INSTALLED) tools verl-environment ## Run the tests; TESTS=tests/unit runs only these, WORKERS=2 needs less memory, AGAIN=1 runs what failed.
	$(BIN)/python -m pytest $(if $(AGAIN),$(LAST_FAILED),$(PARALLEL)) $(TESTS)

engines: $(INSTALLED) tools ## Run the tests with real container engines, Slurm and systemd; needs root and Debian 12.
	.ci/engines
	$(BIN)/python -m pytest --engines --timeout 900 -o cache_dir=.pytest_cache/engines $(if $(AGAIN),$(LAST_FAILED),--numprocesses 2 --dist loadfile --no-loadscope-reorder) tests/engines

test-nightly: $(INSTALLED) ## Run only the property tests, with 30 times as many new random examples.
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile nightly --timeout 1800 --numprocesses auto $(TESTS)

test-fast: $(INSTALLED) ## Run the tests that need no Ray, torch or browser; TESTS=tests/unit runs only these.
	$(BIN)/python -m pytest --fast --timeout 60 --numprocesses $(WORKERS) --dist worksteal $(TESTS)

test-oldest: ## Run tests of the fast tier with the lowest declared version of every dependency.
	@.ci/python oldest

test-python: ## Run the fast tests on each installed Python; PYTHONS=3.12 runs one.
	@.ci/python $(PYTHONS)

coverage: $(INSTALLED) ## Measure the branch coverage of the fast tests, per package.
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest --fast -q $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m tests.support.coverage_report

mutants: $(INSTALLED) ## Mutate the modules named in pyproject.toml and list the mutants that no test notices.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutants]'
	$(BIN)/python -m mutmut run
	$(BIN)/python -m mutmut results

faults: $(INSTALLED) tools ## Run the fault matrix and write docs/reliability.md; FAULTS=tests/faults/test_network.py repeats only these runs.
	$(if $(filter tests/faults,$(FAULTS)),rm -rf build/faults)
	$(BIN)/python -m pytest $(PARALLEL) --all-loads --fault-records build/faults $(FAULTS)
	$(BIN)/python -m tests.faults.report build/faults > build/reliability.md
	mv build/reliability.md docs/reliability.md

chaos: $(INSTALLED) ## Kill and stop parts of a real TransferQueue 35 times under the example's controller; SEED=2 draws other moments.
	$(BIN)/python -m pytest -s --all-incidents --chaos-seed $(SEED) tests/end_to_end/test_recovery_chaos.py

verl: $(INSTALLED) verl-environment ## Run verl's own trainer on CPUs beside the exporter, in each of its modes.
	$(BIN)/python -m pytest tests/verl

soak: $(INSTALLED) ## Run the soak test, days of a training run in 10 minutes; DURATION=60 ends it after 60 s.
	$(BIN)/python -m tests.soak.soak $(if $(DURATION),--duration $(DURATION))

fuzz: $(INSTALLED) ## Fuzz the parsers of network input, 1 minute per target; DURATION=600 sets another time in seconds.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.fuzz $(if $(DURATION),--seconds $(DURATION))

check: $(INSTALLED) ## Check format, lint, types, the import contract and that generated files are up to date.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m exporter.catalogue.docs | diff docs/metrics.md - || { echo 'docs/metrics.md is out of date: run make docs' >&2; exit 1; }
	$(BIN)/python -m exporter.shipped.thresholds | diff dashboards/prometheus/thresholds.yaml - || { echo 'thresholds.yaml is out of date: run make dashboards' >&2; exit 1; }
	$(BIN)/python helm/readme.py | diff helm/tq-exporter/README.md - || { echo 'helm/tq-exporter/README.md is out of date: run make docs' >&2; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python -m benchmarks.performance --check
	rm -rf build/dashboards && $(BIN)/python -m dashboards.build build/dashboards
	diff -r dashboards/grafana build/dashboards || { echo 'dashboards/grafana is out of date: run make dashboards' >&2; exit 1; }

format: $(INSTALLED) ## Format the code and apply the linter's automatic fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED) ## Generate docs/metrics.md, docs/licences.md and the chart's README, and build the site into build/site; OFFLINE=true for files.
	$(BIN)/python -m exporter.catalogue.docs > docs/metrics.md
	$(BIN)/python helm/readme.py > helm/tq-exporter/README.md
	$(BIN)/python docs/_site/licences.py > docs/licences.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

screenshots: $(INSTALLED) tools ## Take the screenshots in docs/images from the demo; takes a few minutes.
	$(BIN)/python -m pytest tests/page/demo_screenshots.py --screenshots docs/images

detection: $(INSTALLED) tools ## Measure when conditions and alerts first show in the demo's incidents; takes half an hour.
	$(BIN)/python -m tests.dashboards.detection

dashboards: $(INSTALLED) ## Build dashboards/grafana and the rule file of the thresholds.
	$(BIN)/python -m dashboards.build
	$(BIN)/python -m exporter.shipped.thresholds > dashboards/prometheus/thresholds.yaml

bench: $(INSTALLED) tools ## Run the benchmarks, half an hour on an idle machine, and write benchmarks/results; BENCHMARKS="poll fold" runs only these.
	.ci/victoria-metrics > /dev/null
	$(BIN)/python -m benchmarks $(BENCHMARKS)

bench-quick: $(INSTALLED) tools ## Run a few seconds of each benchmark, to see that it works; no figure is judged or kept.
	$(BIN)/python -m benchmarks --quick

performance: $(INSTALLED) ## Write the measured tables of the docs, and their plots, from benchmarks/results.
	$(BIN)/python -m benchmarks.performance

audit: $(INSTALLED) ## Check the installed packages for known vulnerabilities (needs Internet access).
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	$(BIN)/python -m pip freeze --exclude-editable > .audit/installed.txt
	.audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps --requirement .audit/installed.txt

dist: ## Build and check wheel and sdist, package the chart, list the wheel's dependencies, and write its SBOM, into dist/.
	rm -rf dist build/lib
	# Not in .venv: with what the SBOM's tool brings, `import ray` takes 2 s longer.
	test -x .release/bin/pyproject-build || { $(PYTHON) -m venv --clear .release && .release/bin/python -m pip install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0 cyclonedx-bom==7.5.0; }
	.release/bin/python -m build
	.release/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(PYTHON) -m venv --clear build/clean
	build/clean/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	build/clean/bin/python -m pip freeze --exclude tq-exporter > dist/dependencies.txt
	.release/bin/cyclonedx-py environment --output-format JSON --output-file dist/sbom.json build/clean/bin/python
	build/clean/bin/tq-exporter --version
	version=$$(basename dist/*.whl | cut -d- -f2) && .ci/chart "$$version" dist && \
		echo "--build-arg VERSION=$$version --build-arg COMMIT=$$(git rev-parse --short=12 HEAD)" > dist/image.args

release-check: dist ## Install what make dist built on each installed Python, and run it there; PYTHONS=3.12 takes one.
	@.ci/release-check $(PYTHONS)

clean: ## Remove the virtual environments and all generated files.
	rm -rf $(VENV) .venv-* .audit .release .tq-versions build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
