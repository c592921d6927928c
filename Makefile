# make demo [FASTLANE=0]    run the whole, to look at; without the fast lane
# make machines-demo [PORT=8080]    three machines behind an HAProxy, to look at
# make test    every test         make check   lint, types, layers
# make test-debian RELEASE=trixie [ORDINARY=1]    every test on another Debian (tests/debian.sh)
# make torture MINUTES=5 SEED=7 [FASTLANE=0] [PRELOAD=1] [SURVIVE=anything|leaving|nothing] [STORE=own|flask]
#                                kill and stop processes at random; check that nothing is lost needlessly
# make bench [QUICK=1]    the cost of a request, beside other servers: docs/bench.md
# make docs    write the generated pages of docs/reference anew
#
# The environment folder .venv is made on first use; `make clean` removes it, and what pip left here.

PORT ?=
APP ?=
SESSION_COOKIE ?=
SERVERS ?=
MAX_REQUESTS ?=
FASTLANE ?=
SURVIVE ?=
SAVE ?=
LOAD ?=
TESTS ?= tests
MINUTES ?= 5
SEED ?= 7
PRELOAD ?=
STORE ?=
QUICK ?=
RELEASE ?=
ORDINARY ?=

SOURCES := setup.cfg pyproject.toml apache/install.sh $(shell find lbadaptor monitor apache -type f ! -path '*/__pycache__/*')

# What the caller has in the environment reaches the AppServers; what make adds to it does not.
CLEAN := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES -u MAKE_TERMERR -u MAKE_TERMOUT

# What the caller has in the environment for Python (PYTHONPATH, PYTHONOPTIMIZE …) is not for the tests and the tools.
OWN := $(CLEAN) $(addprefix -u ,$(filter PYTHON%,$(.VARIABLES)))

.PHONY: demo machines-demo test test-debian torture bench check docs units clean

demo: .venv/ready-demo
	@exec $(CLEAN) .venv/bin/python -I -m monitor.ctl demo $(if $(PORT),--port '$(PORT)') $(if $(APP),--app '$(APP)') \
	    $(if $(SESSION_COOKIE),--session-cookie '$(SESSION_COOKIE)') $(if $(SERVERS),--servers '$(SERVERS)') \
	    $(if $(MAX_REQUESTS),--max-requests '$(MAX_REQUESTS)') $(if $(filter 0,$(FASTLANE)),--no-fast-lane) \
	    $(if $(SURVIVE),--survive '$(SURVIVE)') $(if $(SAVE),--save '$(SAVE)') $(if $(LOAD),--load '$(LOAD)')

machines-demo: .venv/ready-machines-demo
	@exec $(CLEAN) .venv/bin/python -I -m monitor.demo.machines $(if $(PORT),--port '$(PORT)')

test: .venv/ready-test
	@exec $(OWN) .venv/bin/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder $(TESTS)

test-debian: export TESTS := $(TESTS)
test-debian:
	@exec tests/debian.sh '$(RELEASE)' $(if $(ORDINARY),user) "$$TESTS"

torture: .venv/ready-test
	@exec $(OWN) .venv/bin/python -m tests.torture --minutes $(MINUTES) --seed $(SEED) $(if $(filter 0,$(FASTLANE)),--no-fast-lane) \
	    $(if $(SURVIVE),--survive '$(SURVIVE)') $(if $(STORE),--store '$(STORE)') $(if $(PRELOAD),--preload)

bench: .venv/ready-bench
	@exec $(OWN) .venv/bin/python -m tests.bench $(if $(QUICK),--quick)

check: .venv/ready-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(OWN) .venv/bin/mypy
	$(OWN) .venv/bin/python -m pytest -q tests/unit/test_layers.py tests/unit/test_docs.py

docs: .venv/ready-test
	$(OWN) .venv/bin/python -m lbadaptor.contract.settings.reference > docs/reference/settings.md
	$(OWN) .venv/bin/python -m monitor.policy.states > docs/reference/states.md
	$(OWN) .venv/bin/python -m monitor.contract.orders > docs/reference/orders.md

units:
	sed -f monitor/units/instance.sed monitor/units/lbadaptor.service > monitor/units/lbadaptor@.service

clean:
	rm -rf .venv build lbadaptor.egg-info

.venv/ready-%: $(SOURCES)
	@apache/install.sh $*
	@touch $@
