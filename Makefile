# Two commands: `make lab` opens the course, `make test` runs every test.
PYTHON ?= python3
BIN := .venv/bin
# Of this folder: an environment that came along with a copy, or stayed behind in a folder that was
# renamed, points to another place.
READY := .venv/.installed-$(shell pwd -P | cksum | cut -d ' ' -f 1)

.PHONY: lab class test notebooks figures lint pretrain bench mutation clean

lab: $(READY)       ## open the course in JupyterLab
	$(BIN)/python tools/lab.py

class: $(READY)     ## the same without outputs and with larger figures, for a lecture
	$(BIN)/python tools/lab.py --class

test: $(READY)      ## run every test and print a summary
	$(BIN)/python tools/run_tests.py

notebooks: $(READY) ## rebuild and execute every notebook from its text in course/
	$(BIN)/python -m tools.build_notebooks

figures: $(READY)   ## write figures/ from the executed notebooks, and film the laboratory
	$(BIN)/python -m tools.make_figures
	$(BIN)/python -m course.ch07_language_model.film

lint: $(READY)      ## style, format, types
	$(BIN)/python tools/run_tests.py lint

pretrain: $(READY)  ## rebuild the shipped language model (about a minute)
	$(BIN)/python tools/pretrain.py

bench: .venv/.bench         ## measure the training loop beside TRL (about 15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore::FutureWarning -m benchmarks.against_trl

mutation: .venv/.mutation   ## small slips in the code, one at a time: do the tests notice? (hours)
	$(BIN)/python -W ignore tools/mutation.py

clean:
	rm -rf .venv build *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(if $(wildcard $@),,--clear) .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

.venv/.mutation: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[mutation]"
	touch $@

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@
