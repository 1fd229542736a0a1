"""Rules: what a file may say, which mistakes are named and where, and what a reload changes."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from mptcpd_dbus import testing
from mptcpd_dbus.plugin import Connection, NotReady, Plugin, PluginSettings
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch
from mptcpd_dbus.testing import Happening, Played, World, close, connect, link, reload
from tests.lab.sandbox import REPOSITORY

RULES = load("rules", (REPOSITORY / "plugins/rules.py").read_bytes(), Watch())
LINKS = (link("eth0", "10.0.1.1"), link("wlan0", "10.0.2.1"), link("wwan0", "10.0.3.1"))
NOWHERE = "it did not start: rules.toml"


class JoinSettings(PluginSettings):
    """What the strategies of these tests are told."""

    interfaces: tuple[str, ...] = ("wlan0",)
    max_paths: Annotated[int, Field(ge=1)] = 2


class Join(Plugin):
    """Joins over the interfaces that it is told."""

    settings: JoinSettings

    async def connection_established(self, connection: Connection) -> None:
        """Join."""
        for interface in self.settings.interfaces:
            await self.pm.create_subflow(connection, interface=interface)


class Idle(Plugin):
    """Does nothing, and has no settings."""


class Chooser(Plugin):
    """Decides for no connection."""

    claims = False


class Broken(Plugin):
    """Does not start."""

    async def start(self) -> None:
        """Fail."""
        raise RuntimeError("no")


PLUGINS: dict[str, type[Plugin]] = {
    "join": Join,
    "idle": Idle,
    "chooser": Chooser,
    "broken": Broken,
}

WEB = """
    [[rule]]
    name = "web"
    strategy = "join"
    match.port = 443
"""
REST = """
    [[rule]]
    name = "rest"
    strategy = "idle"
"""


class RulesFile:
    """A file of rules, and what they do to a host."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "rules.toml"
        self.problems: list[str] = []
        self.owners: list[dict[int, str]] = []

    def write(self, text: str | bytes) -> None:
        """Replace what the file says; its text may be indented as the test is."""
        content = text if isinstance(text, bytes) else textwrap.dedent(text).lstrip("\n").encode()
        self.path.write_bytes(content)
        self.path.chmod(0o644)

    def play(self, *happenings: Happening) -> Played:
        """Play with these rules."""
        settings = {"file": str(self.path)}
        return testing.play(RULES, *happenings, settings=settings, plugins=PLUGINS)

    def says(self, text: str) -> Happening:
        """Have the file changed, and nobody told."""
        return lambda _: self.write(text)

    def look(self, world: World) -> None:
        """Remember the problem and the owners of this moment."""
        state = world.engine.state
        self.problems.append(state.policies["rules"].problem)
        self.owners.append({c.token: c.owner for c in state.connections.values()})


@pytest.fixture
def rules(tmp_path: Path) -> RulesFile:
    """Give a file that does not exist yet."""
    return RulesFile(tmp_path)


def _owners(played: Played) -> list[str]:
    return [connection.owner for connection in played.connections]


# What a file can say


def test_the_first_rule_that_fits_decides(rules: RulesFile) -> None:
    rules.write(WEB + REST)
    assert _owners(rules.play(*LINKS, connect(), connect(port=80))) == ["rules_web", "rules_rest"]

    rules.write(REST + WEB)
    assert _owners(rules.play(*LINKS, connect(), connect(port=80))) == ["rules_rest", "rules_rest"]


def test_what_no_rule_fits_is_decided_by_nobody(rules: RulesFile) -> None:
    rules.write(WEB)

    played = rules.play(*LINKS, connect(port=80))

    assert (_owners(played), played.commands, played.problem) == ([""], [], "")


def test_an_empty_file_has_no_rules(rules: RulesFile) -> None:
    rules.write("# none yet\n")

    played = rules.play(*LINKS, connect())

    assert (_owners(played), played.problem) == ([""], "")


@pytest.mark.parametrize(
    ("match", "fitting"),
    [
        ("", [1, 2, 3]),
        ("port = 443", [1, 3]),
        ("port = [80, 8080]", [2]),
        ('prefix = "10.0.8.0/24"', [2]),
        ('prefix = ["10.0.9.1", "2001:db8::/32"]', [1, 3]),
        ('side = "server"', [3]),
        ('side = "client"\nport = 443', [1]),
        ("uid = 1000", [1, 2, 3]),
        ("uid = [0]", []),
    ],
)
def test_all_that_is_asked_must_fit(match: str, fitting: list[int], rules: RulesFile) -> None:
    rules.write(f'[[rule]]\nname = "some"\nstrategy = "idle"\n[rule.match]\n{match}\n')

    played = rules.play(
        *LINKS, connect(), connect(remote="10.0.8.1", port=80), connect(server_side=True)
    )

    assert [c.token for c in played.connections if c.owner] == fitting


@pytest.mark.parametrize(
    ("settings", "joins"),
    [
        ("", ["wlan0"]),
        ('interfaces = ["wwan0"]', ["wwan0"]),
        ('interfaces = "wwan0, wlan0"', ["wwan0", "wlan0"]),
        ("interfaces = []", []),
        ('interfaces = ["wwan0"]\nsettings.max-paths = 3', ["wwan0"]),
    ],
)
def test_a_strategy_gets_interfaces_and_settings(
    settings: str, joins: list[str], rules: RulesFile
) -> None:
    rules.write(f'[[rule]]\nname = "web"\nstrategy = "join"\n{settings}\n')

    played = rules.play(*LINKS, connect())

    assert [command.split(" dev ")[1].split()[0] for command in played.commands] == joins


def test_a_strategy_that_does_not_start_is_passed_over(rules: RulesFile) -> None:
    rules.write('[[rule]]\nname = "bad"\nstrategy = "broken"\n' + textwrap.dedent(REST))

    played = rules.play(*LINKS, connect())

    assert (_owners(played), played.problem) == (["rules_rest"], "")


# Which mistakes are named, and where

GOOD = '[[rule]]\nname = "good"\nstrategy = "join"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # TOML
        ("[[rule]\n", ":1: Expected ']]' at the end of an array declaration"),
        ('[[rule]]\nname = "web\n', ":2: Illegal character '\\n'"),
        ("[[rule]]\nname\n", ":2: Expected '=' after a key in a key/value pair"),
        ('[[rule]]\nname = "a"\nname = "b"\n', ":3: Cannot overwrite a value"),
        ("[[rule]]\nport = [\n443\n", ":3: Unclosed array"),
        (b"[[rule]]\nname = '\xff'\n", ":2: save the file in UTF-8"),
        # The form
        (GOOD + "\n[rules]\n", ":5: rules: unknown key; known: rule"),
        ("log = 1\n" + GOOD, ":1: log: unknown key; known: rule"),
        ("[rule]\n", ":1: rule: {}: Input should be a valid list"),
        ("rule = 3\n", ":1: rule: 3: Input should be a valid list"),
        ('# one\n\n[[rule]]\nstrategy = "join"\n', ":3: name: it must be given"),
        (GOOD + '[[rule]]\nname = "web"\n', ":4: strategy: it must be given"),
        (GOOD + "# two\n[rule.match]\nprot = 443\n", ":6: match.prot: unknown key; known: port,"),
        (GOOD + "match.prot = 443\n", ":4: match.prot: unknown key; known: port, prefix, uid,"),
        (GOOD + "match = {port = 443, prot = 80}\n", ":4: match.prot: unknown key; known: port,"),
        (GOOD + "strat = 1\n", ":4: strat: unknown key; known: name, strategy, interfaces, match"),
        (GOOD + "match = 443\n", ":4: match: 443: Input should be a valid dictionary"),
        ('[[rule]]\nname = 3\nstrategy = "join"\n', ":2: name: 3: Input should be a valid string"),
        ('rule = [\n{name = "web"},\n]\n', ":1: strategy: it must be given"),
        # Of two mistakes the upper one
        (GOOD + "match.port = 0\nfoo = 1\n[[rule]]\n", ":4: match.port: 0: Input should be"),
        (GOOD + "foo = 1\nmatch.port = 0\n[[rule]]\n", ":4: foo: unknown key"),
        # The match
        (GOOD + "[rule.match]\nport = 70000\n", ":5: match.port: 70000: Input should be less"),
        (GOOD + "[rule.match]\nport = [443, 0]\n", ":5: match.port: 0: Input should be greater"),
        (GOOD + "[rule.match]\nport = true\n", ":5: match.port: True: give a number"),
        (GOOD + '[rule.match]\nport = "https"\n', ":5: match.port: 'https': Input should be"),
        (GOOD + '[rule.match]\nprefix = [\n"10.0.0.1/8",\n]\n', ":5: match.prefix: '10.0.0.1/8':"),
        (GOOD + '[rule.match]\nuid = "nobody here"\n', ":5: match.uid: 'nobody here': there is no"),
        (GOOD + "[rule.match]\nuid = -1\n", ":5: match.uid: -1: Input should be greater than"),
        (GOOD + '[rule.match]\nunit = "a/b"\n', ":5: match.unit: 'a/b': 'a/b': give the name of"),
        (
            GOOD + '[rule.match]\nside = "left"\n',
            ":5: match.side: 'left': Input should be 'client'",
        ),
        # The strategy
        (
            '[[rule]]\nname = "web"\nstrategy = "jion"\n',
            ":3: strategy: 'jion': there is no jion.py",
        ),
        (GOOD.replace("join", "chooser"), ":3: strategy: 'chooser' does not decide for"),
        (
            GOOD + "[rule.settings]\nmax-path = 3\n",
            ":5: settings.max-path: unknown key; known: int",
        ),
        (GOOD + "settings.max-paths = 0\n", ":4: settings.max-paths: 0: Input should be greater"),
        (GOOD + "settings = {max-paths = []}\n", ":4: settings.max-paths: []: Input should be"),
        (GOOD + "settings.priority = 1\n", ":4: settings.priority: unknown key"),
        (GOOD + "interfaces = 3\n", ":4: interfaces: 3: Input should be a valid tuple"),
        (
            GOOD.replace("join", "idle") + 'interfaces = ["eth0"]\n',
            ":4: interfaces: unknown key; known: none",
        ),
        (
            GOOD + 'settings.interfaces = ["eth0"]\n',
            ":4: settings: {'interfaces': ['eth0']}: interfaces stand beside the strategy",
        ),
        # The name
        (GOOD + GOOD, ":5: name: two rules are called 'good': rename one"),
        (GOOD.replace("good", "my rule"), ":2: name: 'my rule': give 1 to 64 letters, digits and"),
        (GOOD.replace("good", "x" * 65), ":2: name: 'xxx"),
        (GOOD.replace('"good"', '"""\ngood\n"""'), ":2: name: 'good\\n': give 1 to 64 letters"),
        # Deeper than the readers of TOML and of values can follow
        (GOOD + f"settings.x = {'[' * 900}{']' * 900}\n", ": a value has more than 32 keys before"),
        (GOOD + f"settings.x = {'{a=' * 900}\n", ": a value has more than 32 keys before it"),
        (GOOD + f"settings{'.x' * 900} = 1\n", ": a value has more than 32 keys before it"),
        (GOOD + f"settings{'.x' * 31} = 1\n", ": a value has more than 32 keys before it"),
        (GOOD + f"settings{'.x' * 29} = 1\n", ":4: settings.x: unknown key"),
        # What looks like a rule and is none does not count
        ("'[[rule]]' = '''\n[[rule]]\n'''\n" + GOOD, ":1: [[rule]]: unknown key; known: rule"),
        (
            GOOD + 'settings.max-paths = """\n[[rule]]\n"""\n[[rule]]\nname = "a b"\n'
            'strategy = "join"\n',
            ":4: settings.max-paths: '[[rule]]\\n': Input should be a valid integer",
        ),
        (GOOD.replace("\n", "\r\n") + "foo = 1\r\n", ":4: foo: unknown key"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(
    text: str | bytes, words: str, rules: RulesFile
) -> None:
    rules.path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rules.path.chmod(0o644)

    played = rules.play(*LINKS, connect())

    assert played.problem.startswith(NOWHERE + words)
    assert "\n" not in played.problem
    assert _owners(played) == [""]


def test_a_file_that_is_not_there_or_not_ours_alone_is_refused_without_its_directory(
    rules: RulesFile,
) -> None:
    assert rules.play().problem.startswith(NOWHERE + " does not exist: write it, or")

    rules.write(WEB)
    rules.path.chmod(0o666)
    assert rules.play().problem.startswith(NOWHERE + " can be written by everybody (mode 0666)")

    rules.path.chmod(0o644)
    assert rules.play().problem == ""

    rules.path.rename(rules.path.with_name("elsewhere"))
    rules.path.mkdir(mode=0o755)
    assert rules.play().problem.startswith(NOWHERE + " is no regular file")


# What a reload changes


def test_a_rule_that_is_the_same_goes_on(
    rules: RulesFile, caplog: pytest.LogCaptureFixture
) -> None:
    rules.write(WEB)
    caplog.set_level(logging.INFO)

    played = rules.play(*LINKS, connect(), rules.says(WEB + REST), reload(), connect(port=80))

    assert _owners(played) == ["rules_web", "rules_rest"]
    assert len(played.commands) == 1, "it must not have heard of its connection again"
    assert caplog.messages.count("plugin rules_web runs") == 1


@pytest.mark.parametrize("changed", ['strategy = "idle"', 'interfaces = ["wwan0"]'])
def test_a_rule_that_has_changed_begins_anew_with_its_connections(
    changed: str, rules: RulesFile, caplog: pytest.LogCaptureFixture
) -> None:
    key = changed.split(" = ", 1)[0]
    old = [line for line in textwrap.dedent(WEB).splitlines() if not line.startswith(key)]
    rules.write(WEB)
    caplog.set_level(logging.INFO)

    played = rules.play(*LINKS, connect(), rules.says("\n".join([*old, changed])), reload())

    assert _owners(played) == ["rules_web"]
    assert caplog.messages.count("plugin rules_web runs") == 2
    assert len(played.commands) == (2 if key == "interfaces" else 1)


def test_connections_that_a_changed_rule_does_not_fit_pass_to_the_next_in_line(
    rules: RulesFile,
) -> None:
    rules.write(WEB + REST)
    changed = WEB.replace("443", "8443") + REST

    played = rules.play(*LINKS, connect(), connect(port=8443), rules.says(changed), reload())

    assert _owners(played) == ["rules_rest", "rules_rest"], "who has an owner keeps it"


def test_the_connections_of_a_rule_that_is_gone_pass_to_the_next_in_line(
    rules: RulesFile,
) -> None:
    rules.write(WEB)
    renamed = WEB.replace("web", "other")

    played = rules.play(
        *LINKS, connect(), rules.look, rules.says(renamed), reload(), rules.look, rules.says(REST),
        reload(), rules.look, rules.says(""), reload(), rules.look, close(),
    )  # fmt: skip

    assert rules.owners == [{1: "rules_web"}, {1: "rules_other"}, {1: "rules_rest"}, {1: ""}]
    assert rules.problems == [""] * 4
    assert played.connections == []


def test_a_new_rule_gets_connections_to_come_and_those_of_nobody(rules: RulesFile) -> None:
    rules.write(WEB)

    played = rules.play(
        *LINKS, connect(), connect(port=80), rules.says(REST + WEB), reload(), connect()
    )

    assert _owners(played) == ["rules_web", "rules_rest", "rules_rest"]


@pytest.mark.parametrize("wrong", ["[[rule]]\n", 'name = "web"\n', 'strategy = "join"\n'])
def test_a_wrong_file_leaves_the_old_rules_in_force_until_a_right_one_comes(
    wrong: str, rules: RulesFile
) -> None:
    rules.write(WEB)

    played = rules.play(
        *LINKS,
        rules.says(WEB.replace("web", "new") + textwrap.dedent(wrong)),
        reload(),
        rules.look,
        connect(),
        rules.says(WEB + REST),
        reload(),
        connect(port=80),
    )

    assert rules.problems[0].startswith("reload: rules.toml:")
    assert _owners(played) == ["rules_web", "rules_rest"]
    assert played.problem == ""


def test_six_wrong_files_in_a_row_do_not_disable_the_plugin(rules: RulesFile) -> None:
    rules.write(WEB)

    played = rules.play(*LINKS, rules.says("rule"), *[reload()] * 6, connect())

    assert _owners(played) == ["rules_web"]


def test_to_load_the_plugin_anew_with_a_wrong_file_leaves_the_old_rules_in_force(
    rules: RulesFile,
) -> None:
    async def load_anew(world: World) -> None:
        try:
            await world.host.reload("rules")
        except NotReady as refused:
            rules.problems.append(str(refused))

    rules.write(WEB)

    played = rules.play(
        *LINKS, rules.says("rule"), load_anew, connect(), rules.says(WEB + REST), load_anew,
        connect(port=80),
    )  # fmt: skip

    assert rules.problems == [
        "plugin rules: it did not start: rules.toml:1: Expected '=' after a key in a key/value pair"
    ]
    assert _owners(played) == ["rules_web", "rules_rest"]
    assert played.problem == ""
