# The one way to set up, check, test and show mptcpd-dbus; `make help` lists the targets.
# SPDX-License-Identifier: BSD-3-Clause

# Debian's interpreter: the first python3 on PATH may be unreadable for other users.
PYTHON := $(or $(wildcard /usr/bin/python3),python3)
VENV := .venv
SANDBOX := $(VENV)/bin/python -m tests.lab.sandbox

# What the product runs on and what its tests and demo use.  NetworkManager is never started by its
# installation here: it would take over the network of a machine that has done without.
PACKAGES := python3-venv dbus dbus-bin polkitd python3-gi gir1.2-glib-2.0 iproute2 systemd \
	libglib2.0-bin nftables libxml2-utils libdbus-1-dev util-linux pkgconf network-manager \
	zsh fish mandoc groff-base jq build-essential debhelper lintian debootstrap systemd-container
# What `make bench` measures ours beside; like NetworkManager it is not started by its installation.
PACKAGES_BENCH := mptcpd libmptcpd3-dev
# What only tests on this machine use: the systems that they boot are made of those above.
PACKAGES_HERE := strace
# A second bus to test on. Where systemd runs, its package takes over the machine's system bus.
PACKAGES_OPTIONAL := $(if $(wildcard /run/systemd/system),,dbus-broker)

.PHONY: help setup packages packages-bench format lint test test-system fuzz bench demo contract captures
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

include systemd/install.mk

setup: packages $(VENV)/.stamp ## install what is missing: Debian packages (as root), .venv

packages-bench: PACKAGES := $(PACKAGES_BENCH)
packages-bench: PACKAGES_OPTIONAL :=
packages packages-bench:
	@missing() { for p; do dpkg-query -W -f '$${Status}' $$p 2>/dev/null \
	        | grep -q ' installed$$' || echo $$p; done; }; \
	wanted=$$(missing $(PACKAGES) $(PACKAGES_HERE)); also=$$(missing $(PACKAGES_OPTIONAL)); \
	[ -n "$$wanted$$also" ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
	    [ -n "$$wanted" ] || exit 0; \
	    echo "make setup: install these Debian packages as root first:" $$wanted >&2; exit 1; \
	fi; \
	exec </dev/null; export DEBIAN_FRONTEND=noninteractive; \
	case "$$wanted" in *network-manager*) unit=NetworkManager.service;; \
	    *mptcpd*) unit=mptcp.service;; *) unit=;; esac; \
	[ -z "$$unit" ] || [ ! -d /run/systemd/system ] || systemctl mask $$unit && \
	apt-get -q update && \
	if [ -n "$$wanted" ]; then apt-get -qy install --no-install-recommends $$wanted; fi && \
	for p in $$also; do apt-get -qy install --no-install-recommends $$p \
	    || echo "make setup: no $$p here; its tests run on dbus-daemon alone" >&2; done

$(VENV)/.stamp: pyproject.toml
	umask 022; $(PYTHON) -m venv $(VENV) && \
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

format: setup ## rewrite the sources in the one style
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

lint: setup ## ruff and mypy --strict
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test: setup lint build ## everything, in namespaces of its own (ARGS='-k name' to choose)
	$(SANDBOX) $(VENV)/bin/python -m pytest $(ARGS)

test-system: setup build ## of these, what runs on booted Debian systems
	$(SANDBOX) $(VENV)/bin/python -m pytest -m booted $(ARGS)

fuzz: setup ## fuzz the readers of foreign bytes (ARGS='EXECUTIONS TARGET...')
	$(VENV)/bin/python -m tests.fuzz $(ARGS)

bench: setup packages-bench ## ours beside Debian's mptcpd (ARGS='--only churn --quick --json FILE')
	$(SANDBOX) $(VENV)/bin/python -m tests.bench $(ARGS)

demo: setup ## a tour on two hosts with three links
	$(SANDBOX) $(VENV)/bin/python -m tests.lab.demo

captures: setup ## rewrite what README.md shows of mptcpctl
	$(SANDBOX) $(VENV)/bin/python -m tests.captures

contract: setup ## rewrite dbus/*.xml and docs/man/org.mptcpd1.5, the golden files of the D-Bus interfaces
	$(VENV)/bin/python -m tests.contract
