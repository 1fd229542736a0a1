# Installing the service and taking it away again, for Makefile; PREFIX and DESTDIR mean the usual.
# Its Python packages are its own: those of the lock file beside this, where no other program sees them.
# SPDX-License-Identifier: BSD-3-Clause

PREFIX := /usr
DATADIR := $(PREFIX)/share
PLUGINDIR := $(PREFIX)/lib/mptcpd-dbus
ENVIRONMENT := $(PREFIX)/libexec/mptcpd-dbus
DOCDIR := $(DATADIR)/doc/mptcpd-dbus
# The bus and polkit look for what lets a service in nowhere else, whatever the prefix.
SYSTEMDATADIR := /usr/share
CONFIGURATION := /etc/mptcpd-dbus/mptcpd-dbus.conf
SHIPPED := systemd/mptcpd-dbus.conf
LOCK := systemd/requirements.lock

# An environment is bound to one minor version of Python.
INTERPRETER := $(shell $(PYTHON) -c \
	'import sys; print("%s/bin/python%d.%d" % (sys.base_prefix, *sys.version_info[:2]))')
COLLECTED := build/$(notdir $(INTERPRETER))
PACKAGES_DIR := $(ENVIRONMENT)/lib/$(notdir $(INTERPRETER))/site-packages

# SOURCE=TARGET of each file; the sources say /usr where PREFIX is meant.
into = $(foreach source,$(2),$(source)=$(1)/$(notdir $(source)))
COMMANDS := $(call into,$(PREFIX)/bin,$(wildcard systemd/bin/*))
SOURCES := $(sort $(wildcard mptcpd_dbus/*.py mptcpd_dbus/*/*.py mptcpd_dbus/py.typed))
MODULES := $(foreach source,$(SOURCES),$(source)=$(PACKAGES_DIR)/$(source))
FILES := \
	$(foreach n,1 5 7 8,$(call into,$(DATADIR)/man/man$(n),$(wildcard docs/man/*.$(n)))) \
	$(call into,$(DATADIR)/bash-completion/completions,mptcpd_dbus/ctl/completion/mptcpctl) \
	$(call into,$(DATADIR)/zsh/vendor-completions,mptcpd_dbus/ctl/completion/_mptcpctl) \
	$(call into,$(DATADIR)/fish/vendor_completions.d,mptcpd_dbus/ctl/completion/mptcpctl.fish) \
	$(call into,$(DATADIR)/pkgconfig,plugins/mptcpd-dbus.pc) \
	$(call into,$(PLUGINDIR),$(filter-out plugins/foo.py,$(wildcard plugins/*.py))) \
	$(call into,$(DATADIR)/dbus-1/interfaces,$(wildcard dbus/*.xml)) \
	$(call into,$(SYSTEMDATADIR)/dbus-1/system.d,dbus/org.mptcpd1.conf) \
	$(call into,$(SYSTEMDATADIR)/dbus-1/system-services,dbus/org.mptcpd1.service) \
	$(call into,$(SYSTEMDATADIR)/polkit-1/actions,polkit/org.mptcpd1.policy) \
	$(call into,$(DOCDIR)/examples,polkit/50-mptcpd-dbus.rules plugins/foo.py) \
	$(call into,$(DOCDIR)/examples,systemd/no-listeners.conf) \
	$(call into,$(PREFIX)/lib/systemd/system,systemd/mptcpd-dbus.service) \
	systemd/mptcpd-dbus.sysusers=$(PREFIX)/lib/sysusers.d/mptcpd-dbus.conf

# In a man page the hyphen is escaped.
PLACED = sed -e 's,/usr/\(bin/mptcp\|lib\(exec\)\?/mptcpd\\\?-dbus\),$(PREFIX)/\1,g' \
	-e 's,^prefix=/usr$$,prefix=$(PREFIX),'
# Each file appears whole and readable: a bus looks at once.
PUT = put() { mode=$$1; shift; for pair; do target="$(DESTDIR)$${pair\#*=}"; \
	    $(PLACED) "$${pair%%=*}" | install -D -m $$mode /dev/stdin "$$target.new"; \
	    mv "$$target.new" "$$target"; done; }

# What a package is made of.
PACKAGED := Makefile LICENSE dbus docs mptcpd_dbus plugins polkit systemd

.PHONY: build lock install uninstall deb

build: $(COLLECTED)/.stamp ## collect the Python packages that the service runs with

$(COLLECTED)/.stamp: $(LOCK)
	rm -rf build/pip $(COLLECTED)
	umask 022; $(PYTHON) -m venv build/pip && \
	build/pip/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-compile \
	    --only-binary :all: --target $(COLLECTED) --requirement $(LOCK)
	rm -rf build/pip $(COLLECTED)/bin
	@touch $@

lock: ## rewrite the lock file: the newest that pyproject.toml allows, for every Python
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header \
	    --no-annotate --python-version 3.11 --output-file $(LOCK) pyproject.toml
	rm -rf build/lock

install: build ## install the service below PREFIX (/usr); DESTDIR is for packagers
	@set -e; umask 022; $(PUT); \
	rm -rf "$(DESTDIR)$(ENVIRONMENT)"; \
	put 755 $(COMMANDS); put 644 $(FILES) $(MODULES); \
	if [ ! -e "$(DESTDIR)$(CONFIGURATION)" ]; then \
	    put 644 $(SHIPPED)=$(CONFIGURATION); fi; \
	cp -r $(COLLECTED)/* "$(DESTDIR)$(PACKAGES_DIR)"; \
	printf '%s\n' 'home = $(patsubst %/,%,$(dir $(INTERPRETER)))' 'include-system-site-packages = false' \
	    >"$(DESTDIR)$(ENVIRONMENT)/pyvenv.cfg"; \
	mkdir -p "$(DESTDIR)$(ENVIRONMENT)/bin"; \
	ln -sfn $(INTERPRETER) "$(DESTDIR)$(ENVIRONMENT)/bin/python3"; \
	$(PYTHON) -m compileall -qf -s "$(DESTDIR)" -p / "$(DESTDIR)$(PACKAGES_DIR)"

uninstall: ## remove what was installed; a configuration that was changed stays
	@set -e; cd "$(DESTDIR)/"; \
	for pair in $(COMMANDS) $(FILES); do rm -f ".$${pair#*=}"; done; \
	rm -rf ".$(ENVIRONMENT)" ./run/mptcpd-dbus; \
	if cmp -s ".$(CONFIGURATION)" "$(CURDIR)/$(SHIPPED)"; then rm ".$(CONFIGURATION)"; fi; \
	for directory in $(PLUGINDIR) $(DOCDIR)/examples $(DOCDIR) $(dir $(CONFIGURATION)); do \
	    [ ! -d ".$$directory" ] || rmdir --ignore-fail-on-non-empty ".$$directory"; done

deb: build ## make a Debian package for the release that this runs on, in build/deb
	rm -rf build/deb
	mkdir -p build/deb/source/build
	cp -a $(PACKAGED) build/deb/source
	mv build/deb/source/systemd/debian build/deb/source
	cp -a $(COLLECTED) build/deb/source/build
	cd build/deb/source && dpkg-buildpackage --build=binary --no-sign
	rm -rf build/deb/source
