"""Says by rules in a file which strategy decides for which connections, with which interfaces.

    [[rule]]
    name = "web"              # this becomes the policy rules_web
    strategy = "fullmesh"     # a plugin; load-plugins need not name it
    interfaces = ["wlan*"]    # if the strategy has that setting, as those that come with us do
    [rule.match]              # port, prefix, uid, unit, side: all that stand here must fit,
    port = [443, 8443]        # and of several values one
    uid = ["alice"]
    [rule.settings]           # more settings of the strategy
    max-subflows = 2

The first rule that fits decides; the policies that the rules become stand where this plugin does.
On a reload, rules that are the same go on undisturbed.  A rule that has changed begins anew and
keeps the connections that still fit it; the others, and those of a rule that is gone, pass to the
next in line.  A connection that somebody decides for stays there, even if a new rule fits it.

A wrong file changes nothing: its first wrong line stands in `Problem` and in the log.
Source of the form: TOML 1.0, https://toml.io/en/v1.0.0
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from mptcpd_dbus.plugin import (
    ConfigurationError,
    Match,
    Plugin,
    PluginSettings,
    Priority,
    Rule,
    WrongRule,
    read_trusted,
)

LARGEST = 64 << 10  # bytes of a file
LONGEST = 64  # lines of a statement in which places are looked for
DEEPEST = 32  # keys to a value; settings hardly need five

Keys = tuple[str | int, ...]
"""Where something stands in a file: ("rule", 0, "match", "port")."""


class RulesSettings(PluginSettings):
    """The section [plugin rules]."""

    file: Path = Path("/etc/mptcpd-dbus/rules.toml")


class Rules(Plugin):
    """Lets a file of rules say which strategy decides for which connections"""

    version = "1"
    priority = Priority.HIGH
    steers = "both"
    claims = False
    settings: RulesSettings

    async def start(self) -> None:
        await self._follow(RuleFile(self.settings.file))

    async def reload(self) -> None:
        await self._follow(RuleFile(self.settings.file))

    async def _follow(self, file: "RuleFile") -> None:
        try:
            await self.pm.set_rules(file.rules)
        except WrongRule as wrong:
            number = next(n for n, rule in enumerate(file.rules) if rule is wrong.rule)
            raise file.wrong(("rule", number, *wrong.key.split(".")), wrong.text) from None
        self.log.info("rules in force: %d, of %s", len(file.rules), self.settings.file)


class RuleFile:
    """What a file says; its `rules` still may not suit the strategies that they name."""

    def __init__(self, path: Path) -> None:
        self._name = path.name  # everybody may read what is wrong, but not where our files are
        text = self._read(path)
        given = self._parse(text)
        self._lines = dict(_lines(text))
        try:
            self.rules = [_rule(rule) for rule in _File.model_validate(given).rule]
        except ValidationError as error:
            first = min(error.errors(), key=lambda found: self._line(found["loc"]))
            raise self.wrong(first["loc"], _words(first)) from None

    def wrong(self, keys: Keys, text: str) -> ConfigurationError:
        """Say what is wrong with what stands at *keys*, with file, line and key."""
        if keys[2:] == ("settings", "interfaces"):
            keys = (*keys[:2], "interfaces")
        names = [key for key in keys if isinstance(key, str)]
        key = ".".join(names[1:] or names)
        return ConfigurationError(f"{self._name}:{self._line(keys)}: {key}: {text}")

    def _read(self, path: Path) -> str:
        try:
            found = read_trusted(path)
            if len(found) <= LARGEST:
                return found.decode()
            text = f"{self._name} has more than {LARGEST} bytes: shorten it"
        except FileNotFoundError:
            if path == RulesSettings().file:
                return ""  # nobody has named it
            text = f"{self._name} does not exist: write it, or name another in [plugin rules]"
        except ConfigurationError as error:
            text = str(error).replace(str(path), self._name)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            text = f"{self._name}:{line}: save the file in UTF-8"
        raise ConfigurationError(text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            given = tomllib.loads(text)
            deepest = max(map(len, _within(given)), default=0)
        except RecursionError:
            deepest = DEEPEST + 1
        except tomllib.TOMLDecodeError as error:
            words, _, place = str(error).rpartition(
                " (at "
            )  # line 2, column 1), or end of document)
            found = re.match(r"line (\d+)", place)
            line = found[1] if found else len(text.splitlines())
            raise ConfigurationError(f"{self._name}:{line}: {words}") from None
        if deepest > DEEPEST:
            raise ConfigurationError(
                f"{self._name}: a value has more than {DEEPEST} keys before it"
            )
        return given

    def _line(self, keys: Keys) -> int:
        """Give the line of *keys*, or of the nearest table around what is missing there."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    strategy: str
    interfaces: Any = None
    match: Match = Match()
    settings: dict[str, Any] = {}

    @field_validator("settings")
    @classmethod
    def _no_interfaces(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if "interfaces" in settings:
            raise ValueError("interfaces stand beside the strategy, not here")
        return settings


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: list[_Rule] = []


_KEYS = {1: _File.model_fields, 3: _Rule.model_fields, 4: Match.model_fields}
"""The keys that there are, by how many lead to one."""


def _rule(given: _Rule) -> Rule:
    chosen = {} if given.interfaces is None else {"interfaces": given.interfaces}
    return Rule(given.name, given.strategy, given.match, given.settings | chosen)


def _words(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; known: {', '.join(_KEYS[len(error['loc'])])}"
    if error["type"] == "missing":
        return "it must be given"
    return f"{error['input']!r:.64}: {error['msg'].removeprefix('Value error, ')}"


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Give where all in good TOML begins: a statement ends with the line where it can be read."""
    statement, begins, rules = "", 0, 0
    table: Keys = ()
    for number, line in enumerate(text.split("\n"), 1):
        begins = begins if statement else number
        statement += f"{line}\n"
        if number - begins > LONGEST:
            return  # the rest is told by what stands above it
        try:
            said = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            header = [key for key in [*_within(said)][-1] if isinstance(key, str)]
            rules += header == ["rule"]
            table = (header[0], rules - 1, *header[1:])
            yield from ((table[:depth], begins) for depth in range(1, len(table) + 1))
        else:
            yield from (((*table, *keys), begins) for keys in _within(said))
        statement = ""


def _within(value: object, above: Keys = ()) -> Iterator[Keys]:
    """Give the keys to all that is in *value*."""
    pairs: Iterable[tuple[Any, object]] = ()
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in pairs:
        yield (*above, key)
        yield from _within(below, (*above, key))
