# How .venv is made. What cannot work is refused in one line, with make's exit code 2, before anything is made.
PYTHON ?= python3
# What torch-xla 2.9 has wheels for. torch has one for 3.14 too, but there Hydra up to 1.3.8 ends in an error of argparse.
PYTHONS := 3.10 3.11 3.12 3.13
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# There while a new environment is made, with make's process in it. Left behind, the next make begins anew.
MAKING := $(VENV)/.making

# A Python's version as wheels name it: 3.13t is free-threaded, PyPy3.10 not CPython. Old Pythons understand it.
ASK := import platform, sys; print(platform.python_implementation().replace("CPython", "") \
  + "%d.%d" % sys.version_info[:2] + "t" * ("t" in getattr(sys, "abiflags", "")))
version = $(shell $(1) -c '$(ASK)' 2>/dev/null)
# Debian and Ubuntu keep ensurepip in a package of its own.
makes-venv = $(shell $(1) -c 'import ensurepip, venv' 2>/dev/null && echo yes)

# The version of the environment that is there. Empty: there is none, making it was interrupted, or its Python is gone.
HAVE := $(if $(wildcard $(MAKING)),,$(call version,$(BIN)/python))

# A PYTHON that is asked for is not passed over in silence because another one's environment is there.
ifneq ($(origin PYTHON),file)
ifneq ($(HAVE),)
OTHER := $(if $(filter $(HAVE),$(call version,$(PYTHON))),,FORCE)
endif
endif
.PHONY: FORCE

# The first supported Python on PATH, by name; asked only once, and only to advise.
here = $(eval here := $(shell for v in $(PYTHONS); do test "$$(python$$v -c '$(ASK)' 2>/dev/null)" = $$v \
  && python$$v -c 'import ensurepip, venv' 2>/dev/null && echo python$$v && break; done))$(here)
another = make $(or $(firstword $(MAKECMDGOALS)),setup) PYTHON=$(or $(here),python3.12) ($(if $(here),it is here,once it is installed))
supported = and this runs on Python $(subst $() , or ,$(PYTHONS))
busy = $(shell test -e $(MAKING) && kill -0 $$(cat $(MAKING)) 2>/dev/null && cat $(MAKING))

# $(1): a Python, $(2): its version
refuse-busy = $(if $(busy),$(error $(VENV) is being made by process $(busy): wait for it, or end it))
refuse-python = $(if $(2),,$(error $(1) does not run here, $(supported): $(another)))$(if $(filter $(PYTHONS),$(2)),,$(error \
  $(1) is Python $(2), $(supported): $(if $(filter $(VENV),$(1)),rm -r $(VENV) && )$(another)))
refuse-bare = $(if $(call makes-venv,$(1)),,$(error $(1) has no ensurepip to make an environment with: \
  install python3-venv (Debian, Ubuntu), or $(another)))
refuse-other = $(error $(VENV) is of Python $(HAVE), $(1) is Python $(2): rm -r $(VENV) && make $(MAKECMDGOALS) PYTHON=$(1))

check-old = $(if $(OTHER),$(call refuse-python,$(PYTHON),$(1))$(call refuse-other,$(PYTHON),$(1)))$(call refuse-python,$(VENV),$(HAVE))
check-new = $(refuse-busy)$(call refuse-python,$(PYTHON),$(1))$(call refuse-bare,$(PYTHON))

# Without pip: an interrupted ensurepip can leave a pip that only seems to be there, so the marker comes before it.
define new-environment
$(PYTHON) -m venv --clear --without-pip $(VENV)
@echo $$PPID > $(MAKING)
endef

$(READY): pyproject.toml constraints.txt $(OTHER)
	$(call $(if $(HAVE),check-old,check-new),$(call version,$(PYTHON)))
	$(if $(HAVE),,$(new-environment))
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(READY) && rm -f $(MAKING)
