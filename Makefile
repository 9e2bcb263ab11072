# The words of this project: demo, test, check, interop, faults, fuzz, bench, site, format, lint, types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=

.PHONY: demo test check docs site interop faults fuzz bench format lint types sample_data system clean

demo: $(VENV)/.installed
	$(BIN)/python -m dicom_node.demo --out demo-out $(if $(STUDY),--study "$(STUDY)")

# The whole suite. Tests that need a real peer are skipped, with the reason, where it is absent.
test: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m "not bench"

# The quick part: format, lint, types, and the tests that take seconds, in two processes.
check: lint types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile \
	    -m "not slow and not interop and not faults and not bench"

# Against DCMTK, Orthanc, dciodvfy and PostgreSQL; a missing peer is a failure here.
interop: $(VENV)/.test-installed
	INTEROP_REQUIRED=1 $(BIN)/python -m pytest -m interop

# Kills, crash points and network faults in the numbers of docs/reliability.md. FUZZ_STATE=FOLDER
# lets a run of it that was stopped go on.
faults: $(VENV)/.test-installed
	FAULT_KILLS=$${FAULT_KILLS:-100} FAULT_RECEIVER_KILLS=$${FAULT_RECEIVER_KILLS:-3000} \
	    FAULT_RECEIVERS_KILLS=$${FAULT_RECEIVERS_KILLS:-1000} \
	    FAULT_CRASHES=$${FAULT_CRASHES:-50} FAULT_NETWORK=$${FAULT_NETWORK:-1000} \
	    $(BIN)/python -m pytest -s -m faults --timeout 14400

# Mutated PDUs, association requests and data sets, and the life of a study under random events.
fuzz: $(VENV)/.test-installed
	FUZZ_PDUS=$${FUZZ_PDUS:-100000} FUZZ_REQUESTS=$${FUZZ_REQUESTS:-5000} \
	    FUZZ_DATASETS=$${FUZZ_DATASETS:-100000} FUZZ_LIVES=$${FUZZ_LIVES:-2000} \
	    $(BIN)/python -m pytest -s -m fuzz --timeout 14400

bench: $(VENV)/.test-installed
	$(BIN)/python -m pytest -s -q -m bench tests/bench

format: $(VENV)/.test-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.test-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test-installed
	$(BIN)/mypy

# Pages that follow from the code: states, table of reasons, conformance statement.
docs: $(VENV)/.installed
	$(BIN)/python tools/docs.py

# The documentation as a site, build/site/index.html. A broken link or anchor is an error.
site: $(VENV)/.test-installed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --write-all \
	    -b html docs build/site

# Remakes the two synthetic studies from the simulator.
sample_data: $(VENV)/.installed
	$(BIN)/python -m dicom_node.phantom --rebuild sample_data
	$(BIN)/python -m dicom_node.connection_study --rebuild sample_data

# Debian packages that the interop tests drive (needs root).
system:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    dcmtk dicom3tools orthanc postgresql-15 libpixelmed-java libcommons-codec-java \
	    openjdk-17-jre-headless strace chromium graphviz systemd

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,postgresql]"
	touch $@

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
