"""mptcpctl against the daemon: what it shows is what the kernel has, what it says is what was done.

The kernel is asked by ip(8) and ss(8).
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from mptcpd_dbus.ctl.commands import COMMANDS
from tests.contract import REPOSITORY
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl
from tests.e2e.stage import Stage
from tests.lab.plugin_files import shipped_plugins, write_configuration

SCHEMA = json.loads((REPOSITORY / "docs/mptcpctl.schema.json").read_text())
PLUGIN = "active_backup"
CONFIGURATION = f"""[core]
load-plugins={PLUGIN}

[plugin {PLUGIN}]
match-port=443
"""


async def _connected(stage: MakeStage, **options: Any) -> tuple[Stage, Ctl, str]:
    config = str(write_configuration(CONFIGURATION))
    play = await stage("--config", config, "--plugin-dir", str(shipped_plugins()), **options)
    pair, _ = await play.connection(await play.listener())
    return play, Ctl(play.lab), f"{pair.token:08x}"


def validate(command: str, data: Any) -> None:
    """Demand what the schema says of a command's output, and nothing that it does not name."""
    closed = json.loads(json.dumps(SCHEMA))
    for its in closed["$defs"].values():
        if its.get("type") == "object":
            its.setdefault("additionalProperties", False)
    Draft202012Validator({"$ref": f"#/$defs/output of {command}", **closed}).validate(data)


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_the_json_of_every_command_is_what_the_schema_promises(stage: MakeStage) -> None:
    """All commands but monitor, which has a test of its own, in an order in which all succeed."""
    _, ctl, token = await _connected(stage)
    lines = f"""
        status
        status --debug
        list
        subflow add {token} dev link2
        subflow backup {token}/2 on
        address announce {token} 10.0.3.1 id 9
        list --interface link2
        top --count 1
        show {token}
        address remove {token} 9
        subflow delete {token}/2 announce
        endpoint add 10.0.2.1 dev link2 id 4 subflow
        endpoint show
        endpoint change id 4 backup
        status
        endpoint delete 10.0.2.1
        endpoint flush own
        endpoint flush force
        limits show
        limits set subflows 4
        plugin list
        plugin show {PLUGIN}
        owner {token} {PLUGIN}
        plugin disable {PLUGIN}
        plugin enable {PLUGIN}
        plugin reload {PLUGIN}
        path-manager
        path-manager kernel
        reload
    """.split("\n")
    names = sorted((command.name for command in COMMANDS), key=len, reverse=True)
    seen = set()

    for line in filter(None, map(str.strip, lines)):
        name = next(name for name in names if f"{line} ".startswith(f"{name} "))
        validate(name, ctl.json(*line.split()))
        seen.add(name)

    assert seen == {*names} - {"monitor", "run-plugin"}  # which go on and on
    misused = ctl.refused("--json", "run-plugin", "foo.py")
    assert misused == (2, "run-plugin: it prints a log, which is no JSON")
    assert {f"output of {name}" for name in {*names} - {"run-plugin"}} == {
        name for name in SCHEMA["$defs"] if name.startswith("output of ")
    }


async def test_what_the_schema_does_not_promise_does_not_pass(stage: MakeStage) -> None:
    """The control of the one above: something missing, something new, something else."""
    _, ctl, _ = await _connected(stage)
    data = ctl.json("list")
    (connection,) = data["connections"]
    validate("list", data)

    changes: list[dict[str, Any]]
    changes = [{"token": "1A"}, {"news": 1}, {"local_port": "80"}, {"subflows": [{}]}]
    for wrong in changes:
        with pytest.raises(ValidationError):
            validate("list", {"connections": [connection | wrong]})
    del connection["token"]
    with pytest.raises(ValidationError):
        validate("list", data)


async def test_list_and_show_tell_what_ss_shows(stage: MakeStage) -> None:
    play, ctl, token = await _connected(stage)

    titles, row = _words(ctl.said("list"))
    assert titles[:4] == ["TOKEN", "LOCAL", "REMOTE", "STATE"]
    assert row[0] == token
    assert {int(token, 16)} == play.tokens()
    ((_, local, remote, *_),) = play.sockets()
    assert row[1:4] == [f"{local[0]}:{local[1]}", f"{remote[0]}:{remote[1]}", "established"]
    assert row[4:] == ["1", "link1", "userspace", "-", "root"]

    added = ctl.said("subflow", "add", token, "dev", "link2", "backup")
    assert added.startswith("subflow 2: 10.0.2.1:")
    await play.agreed()
    shown = ctl.said("show", token[:7])
    assert f"Connection: {token}\n" in shown
    subflows = [row for row in _words(shown) if row[:1] in (["1"], ["2"])]
    assert [row[3:6] for row in subflows] == [["link1", "0-0", "no"], ["link2", "1-0", "here"]]
    assert {row[1] for row in subflows} == {f"{its[0]}:{its[1]}" for _, its, *_ in play.sockets()}
    assert _words(ctl.said("list"))[1][4:6] == ["2", "link1,link2"]

    ctl.said("subflow", "delete", "-".join(subflows[1][1:3]))
    await play.agreed()
    assert _words(ctl.said("list"))[1][4:6] == ["1", "link1"]


async def test_list_finds_those_that_are_asked_for(stage: MakeStage) -> None:
    _, ctl, token = await _connected(stage)
    ours = ("--interface=link1", "--uid=root", "--address=10.0.9.1", "--port=4242", "--policy=")

    for wanted in ours:
        assert [it["token"] for it in ctl.json("list", wanted)["connections"]] == [token]
    assert len(ctl.json("list", *ours)["connections"]) == 1
    for other in ("--interface=link3", "--uid=1", "--address=10.0.9.2", "--port=1", "--policy=x"):
        assert ctl.json("list", other) == {"connections": []}
    assert ctl.said("list", "--port", "1") == "No connections.\n"


async def test_a_name_that_is_several_or_none_is_said(stage: MakeStage) -> None:
    play, ctl, first = await _connected(stage)
    pair, _ = await play.connection(await play.listener(port=4243), port=4243)
    second = f"{pair.token:08x}"

    assert ctl.json("show", str(int(first, 16)))["token"] == first
    assert ctl.json("show", f"0x{second}")["token"] == second
    assert ctl.json("show", "connection/2")["token"] == second
    assert ctl.refused("show", "connection/3") == (
        1,
        "there is no connection connection/3; see `mptcpctl list`",
    )
    assert ctl.refused("s") == (2, "'s' may be status or show or subflow")
