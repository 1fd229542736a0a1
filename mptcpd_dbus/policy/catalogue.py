"""What there is to run: plugins loaded as the settings say, and policies made from rules."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from mptcpd_dbus.config import Settings
from mptcpd_dbus.config_file import Section
from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.policy.base import Plugin
from mptcpd_dbus.policy.door import Rule, WrongRule
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.hosted import Hosted
from mptcpd_dbus.policy.sections import WrongKey, read_section, read_settings
from mptcpd_dbus.policy.watch import IMPORT, Watch

_RULE_NAME = re.compile("[A-Za-z0-9_]{1,64}")
_KILLED = "the daemon was killed while {} held it up; enable it to try again"

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where plugins come from; its text names the place."""

    def names(self) -> list[str]:
        """Name all that there are."""

    def load(self, name: str) -> type[Plugin]:
        """Give the class of one; raise PluginProblem."""

    def close(self) -> None:
        """Let go of the place."""


class Catalogue:
    """The plugins of *source* by *settings*; *watch* knows which one got the daemon killed."""

    def __init__(self, settings: Settings, source: Source, watch: Watch) -> None:
        self.settings = settings
        self.source = source
        self._watch = watch

    def load_all(self, running: Mapping[str, Hosted]) -> dict[str, Hosted]:
        """Load what the settings name, in the order of the list; a broken file is a failed plugin.

        Raise ConfigurationError for what cannot be meant, beside what is *running*.
        """
        settings, source = self.settings, self.source
        there = source.names()
        names = list(dict.fromkeys(settings.load_plugins or there))
        for name in names:
            if name not in there:
                raise ConfigurationError(
                    f"{settings.where('load_plugins')}: there is no {name}.py in {source}; there"
                    f" are {', '.join(there) or 'none'}"
                )
        if settings.path_manager and settings.path_manager not in names:
            raise ConfigurationError(
                f"{settings.where('path_manager')}: there is no plugin {settings.path_manager!r}"
                f" among those to load: {', '.join(names) or 'none'}"
            )
        for name in settings.plugins.keys() - set(there):
            where = next(iter(settings.plugins[name].places.values()), "the configuration")
            raise ConfigurationError(
                f"{where}: [plugin {name}]: there is no {name}.py in {source}; there are"
                f" {', '.join(there) or 'none'}"
            )
        others = {policy.name for policy in running.values() if policy.parent or policy.on_bus}
        found = {}
        for place, name in enumerate(names):
            if name in others:
                raise ConfigurationError(
                    f"{name!r} in {source} is the name of a policy from rules or of a program on"
                    " the bus, too: rename one"
                )
            found[name] = Hosted(name, (0, place, 0))
            self.load(found[name])
        return found

    def load(self, policy: Hosted) -> None:
        """Load the file of a plugin and its section of the settings."""
        name = policy.name
        section = self.settings.plugins.get(name, Section(name))
        policy.state, policy.problem = PolicyState.LOADED, ""
        try:
            policy.kind = self._read(name)
            priority, policy.match, policy.settings = read_section(policy.kind, section.values)
        except PluginProblem as problem:
            policy.state, policy.problem = PolicyState.FAILED, str(problem)
            words = "plugin %s in %s is not loaded: %s"
            _log.error(words, name, self.source, problem, extra=policy.fields)
        except WrongKey as wrong:
            raise ConfigurationError(f"{section.where(wrong.key)}: {wrong}") from None
        else:
            policy.rank = (priority, *policy.rank[1:])
            self._check_suspect(policy)

    def _read(self, name: str) -> type[Plugin]:
        """Load a plugin's file, but not again if that got the daemon killed."""
        if self._watch.suspect == (name, IMPORT):
            raise PluginProblem(_KILLED.format(IMPORT))
        return self.source.load(name)

    def _check_suspect(self, policy: Hosted) -> None:
        """Do not start again what got the daemon killed."""
        name, handler = self._watch.suspect or ("", "")
        if name == policy.name:
            policy.state, policy.problem = PolicyState.FAILED, _KILLED.format(handler)
            _log.error("plugin %s is disabled: %s", name, policy.problem, extra=policy.fields)

    def derive(
        self, above: Hosted, rules: Sequence[Rule], running: Mapping[str, Hosted]
    ) -> dict[str, Hosted]:
        """Make a policy of each rule of *above*, beside what is *running*; raise WrongRule."""
        found: dict[str, Hosted] = {}
        for place, rule in enumerate(rules, 1):
            policy = Hosted(f"{above.name}_{rule.name}", (*above.rank[:2], place), above.name)
            known = running.get(policy.name)
            if policy.name in found:
                raise WrongRule(rule, "name", f"two rules are called {rule.name!r}: rename one")
            if known is not None and known.parent != policy.parent:
                raise WrongRule(rule, "name", f"there is another policy {policy.name}: rename one")
            self.apply(rule, policy)
            found[policy.name] = policy
        return found

    def apply(self, rule: Rule, policy: Hosted) -> None:
        """Have *policy* be what *rule* says; raise WrongRule."""
        if not _RULE_NAME.fullmatch(rule.name):
            raise WrongRule(rule, "name", f"{rule.name[:64]!r}: give 1 to 64 letters, digits and _")
        try:
            policy.kind = self._read(rule.strategy)
            policy.settings = read_settings(policy.kind, rule.settings)
        except PluginProblem as problem:
            raise WrongRule(rule, "strategy", f"{rule.strategy[:64]!r}: {problem}") from None
        except WrongKey as wrong:
            raise WrongRule(rule, f"settings.{wrong.key}", wrong.text) from None
        if not policy.kind.claims:
            text = f"{rule.strategy!r} does not decide for connections: name a plugin that does"
            raise WrongRule(rule, "strategy", text)
        policy.rule, policy.match = rule, rule.match
        self._check_suspect(policy)
