"""Rules on the real kernel: who gets which strategy, by user, port, unit and interface.

The strategies are those that come with the daemon.  What no rule fits is for `fullmesh` over all
links; the control has no rules at all.
"""
# SPDX-License-Identifier: BSD-3-Clause

import itertools
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, Stage
from tests.lab.app import App, Pair, converse
from tests.lab.hosts import SERVER
from tests.lab.sandbox import SCRATCH, readable_repository
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"
RULES = "/org/mptcpd1/plugin/rules"
PORTS = (443, 8080)
LINK1, LINK2, LINK3 = "10.0.1.1%link1", "10.0.2.1%link2", "10.0.3.1%link3"
FIRST = "10.0.1.1"  # the connection's own subflow is bound to no link
ALL = ("fullmesh", [FIRST, LINK2, LINK3])

pytestmark = pytest.mark.usefixtures("people")
_numbers = itertools.count(1)
both_ways = pytest.mark.both_ways  # but what the Problem of the daemon's plugin says


class RuleFiles:
    """A file of rules, and the configuration that names it."""

    def __init__(self) -> None:
        self._directory = SCRATCH / f"rules-{next(_numbers)}"
        self._directory.mkdir(mode=0o755)
        self.configuration = self._file(
            "x.conf",
            f"""\
            [core]
            plugin-dir={readable_repository()}/plugins
            load-plugins=rules,fullmesh
            [plugin rules]
            priority=-1
            file={self._directory}/rules.toml
            """,
        )

    def write(self, text: str) -> None:
        """Replace the rules; the text may be indented as the test is."""
        self._file("rules.toml", text)

    def _file(self, name: str, text: str) -> Path:
        file = self._directory / name
        file.write_text(textwrap.dedent(text))
        file.chmod(0o644)
        return file


@pytest.fixture
def rules() -> RuleFiles:
    """Give rules, none yet."""
    files = RuleFiles()
    files.write("")
    return files


@pytest.fixture
def unit() -> Iterator[Path]:
    """Give a control group that is called like a unit, in the kernel's own tree."""
    mount = SCRATCH / "control-groups"
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", str(mount)], check=True)
    group = mount / f"lab-{token_hex(8)}.service"
    group.mkdir()
    yield group
    group.rmdir()
    subprocess.run(["umount", str(mount)], check=True)


async def _start(make: MakeStage, rules: RuleFiles) -> tuple[Stage, dict[int, int]]:
    """Start the daemon, and a server that listens on each port; give the listeners."""
    stage = await make("--config", str(rules.configuration))
    stage.lab.sysctl("server", "net.mptcp.path_manager", "kernel")
    return stage, {port: await stage.listener(port=port) for port in PORTS}


async def _connect(stage: Stage, client: App, listeners: dict[int, int], port: int) -> Pair:
    return await converse(client, stage.server, listeners[port], address=SERVER[4], port=port)


async def _treated(stage: Stage, pair: Pair) -> tuple[str, list[str]]:
    """Tell who decides for a connection, and from where its subflows go, as ss(8) shows them."""
    assert pair.token is not None
    owner = await stage.viewer.get(await stage.path(pair.token), CONNECTION, "Owner")
    sockets = stage.lab.ss("client", "-tinHO", "state", "established").splitlines()
    mine = [line.split() for line in sockets if re.search(rf"/0*{pair.token:x}\(id:", line)]
    return owner, sorted(words[2].rpartition(":")[0] for words in mine)


async def _will_be(stage: Stage, pair: Pair, expected: tuple[str, list[str]]) -> None:
    async def so() -> bool:
        assert await _treated(stage, pair) == expected
        return True

    await eventually(so)


TWO_USERS_TWO_PORTS = """
    [[rule]]
    name = "bulk"
    strategy = "ndiffports"
    match.uid = ["bob"]
    settings.subflows = 2

    [[rule]]
    name = "web"
    strategy = "fullmesh"
    interfaces = ["link2"]
    match.port = [443]
"""


@both_ways
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            TWO_USERS_TWO_PORTS,
            {
                ("alice", 443): ("rules_web", [FIRST, LINK2]),
                ("alice", 8080): ALL,
                ("bob", 443): ("rules_bulk", [FIRST, LINK1]),
                ("bob", 8080): ("rules_bulk", [FIRST, LINK1]),
            },
        ),
        ("", dict.fromkeys(itertools.product(("alice", "bob"), PORTS), ALL)),
    ],
    ids=["with rules", "without"],
)
async def test_two_users_and_two_ports_get_two_different_strategies_on_the_same_host(
    text: str,
    expected: dict[tuple[str, int], tuple[str, list[str]]],
    stage: MakeStage,
    rules: RuleFiles,
) -> None:
    rules.write(text)
    it, listeners = await _start(stage, rules)
    users = {name: it.lab.app("client", name) for name in ("alice", "bob")}

    pairs = {
        (name, port): await _connect(it, users[name], listeners, port) for name, port in expected
    }

    for who, pair in pairs.items():
        await _will_be(it, pair, expected[who])
    assert {who: await _treated(it, pair) for who, pair in pairs.items()} == expected


@both_ways
async def test_a_unit_gets_the_strategy_of_its_rule_and_the_same_user_beside_it_does_not(
    stage: MakeStage, rules: RuleFiles, unit: Path
) -> None:
    rules.write(f"""
        [[rule]]
        name = "service"
        strategy = "fullmesh"
        interfaces = ["link3"]
        match.unit = "{unit.name[:8]}*.service"
    """)
    it, listeners = await _start(stage, rules)
    inside, beside = it.lab.app("client", "alice"), it.lab.app("client", "alice")
    (unit / "cgroup.procs").write_text(str(inside.process.pid))

    first = await _connect(it, inside, listeners, 443)
    second = await _connect(it, beside, listeners, 443)

    await _will_be(it, first, ("rules_service", [FIRST, LINK3]))
    await _will_be(it, second, ALL)
    inside.kill()  # or the group could not be removed


async def test_a_wrong_file_names_file_line_and_key_and_leaves_the_old_rules_in_force(
    stage: MakeStage, rules: RuleFiles
) -> None:
    async def problem() -> str:
        return str(await it.viewer.get(RULES, PLUGIN, "Problem"))

    rules.write(TWO_USERS_TWO_PORTS)
    it, listeners = await _start(stage, rules)
    alice = it.lab.app("client", "alice")
    assert await problem() == ""

    rules.write(TWO_USERS_TWO_PORTS.replace("match.port", "match.prot"))
    it.daemon.reload()

    words = "rules.toml:12: match.prot: unknown key; known: port, prefix, uid, unit, side"
    await eventually(problem)
    assert await problem() == f"reload: {words}"
    assert f"plugin rules, reload: {words}\n" in it.daemon.log.read_text()
    assert await it.viewer.get(RULES, PLUGIN, "State") == "running"
    assert await it.viewer.get(RULES, PLUGIN, "Errors") == 1
    old = await _connect(it, alice, listeners, 443)
    await _will_be(it, old, ("rules_web", [FIRST, LINK2]))

    rules.write(TWO_USERS_TWO_PORTS.replace('"link2"', '"link3"'))
    it.daemon.reload()

    await _will_be(it, await _connect(it, alice, listeners, 8080), ALL)
    await eventually(lambda: "rules in force: 2" in it.daemon.log.read_text().partition(words)[2])
    new = await _connect(it, alice, listeners, 443)
    await _will_be(it, new, ("rules_web", [FIRST, LINK3]))
    assert await problem() == ""


async def test_a_file_that_is_wrong_at_the_start_is_a_problem_of_its_plugin_alone(
    stage: MakeStage, rules: RuleFiles
) -> None:
    rules.write("[[rule]]\n")

    it, listeners = await _start(stage, rules)

    assert await it.viewer.get(RULES, PLUGIN, "State") == "failed"
    words = "it did not start: rules.toml:1: name: it must be given"
    assert await it.viewer.get(RULES, PLUGIN, "Problem") == words
    await _will_be(it, await _connect(it, it.client, listeners, 443), ALL)
