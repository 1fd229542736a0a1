"""The page for authors of clients is true: its command lines, its rules, its tables."""
# SPDX-License-Identifier: BSD-3-Clause

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Variant

from mptcpd_dbus.bus import error_names, names
from tests.contract import REPOSITORY, documented, interfaces
from tests.documents import API, EXAMPLES, README, blocks, commands, rows
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import MANAGER, SUBFLOW, Stage
from tests.lab import polkit_rules
from tests.lab.client import NAME, ROOT, BusClient, BusError
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.wait import eventually

RUN_ON = {  # and what they say when they are at work
    "docs/examples/watch.py": "+ /org/mptcpd1/connection/1 ",
    "docs/examples/policy.py": "",
    "monitor": "is owned by",
}


async def _on_the_stage_of_the_readme(stage: MakeStage) -> Stage:
    (configuration,) = blocks(README, "ini")
    config = str(write_configuration(configuration))
    it = await stage("--config", config, "--plugin-dir", str(shipped_plugins()))
    await it.connection(await it.listener())
    return it


async def test_every_command_line_of_the_page_works(stage: MakeStage, tmp_path: Path) -> None:
    """In their order; those that run on must have heard what the others did."""
    it = await _on_the_stage_of_the_readme(stage)
    python = str(REPOSITORY / ".venv/bin/python")
    heard: dict[str, Path] = {}

    async def registered() -> bool:
        return f"{ROOT}/plugin/spare" in await it.viewer.managed_objects()

    for words in commands(API):
        argv = [python if word == "python3" else word for word in words]
        if words[1] not in RUN_ON:
            it.lab.run("client", argv, cwd=REPOSITORY)
            continue
        out = heard[words[1]] = tmp_path / str(len(heard))
        with out.open("wb") as file:
            it.lab.popen("client", argv, stdout=file, cwd=REPOSITORY)
        sign = RUN_ON[words[1]]
        await eventually((lambda o=out, s=sign: s in o.read_text()) if sign else registered)

    assert heard.keys() == RUN_ON.keys()
    watched = heard["docs/examples/watch.py"].read_text()
    assert re.search(r"^\+ .*/subflow/2 .*^- .*/subflow/2 ", watched, re.DOTALL | re.MULTILINE)
    await eventually(lambda: f"{ROOT}/plugin/spare" in heard["monitor"].read_text())
    with pytest.raises(subprocess.CalledProcessError):  # the control: a mistake would show
        it.lab.run("client", ["busctl", "introspect", NAME, f"{ROOT}/connection/2"])


def test_every_method_that_commands_has_an_example() -> None:
    words = {word.rpartition(".")[2] for line in commands(API) for word in line}
    methods = {method.name for its in interfaces() for method in its.methods if method.action}

    # A command line has no handlers to be called, and no socket to pass.
    assert methods - words == {"RegisterPolicy", "GetConnectionBySocket"}


async def test_the_call_after_a_command_sees_what_it_has_changed(stage: MakeStage) -> None:
    it = await stage()
    _, path = await it.connection(await it.listener())

    async def after(path: str, interface: str, method: str, *call: Any) -> tuple[Any, set[str]]:
        answer = await it.command(path, f"{NAME}.{interface}", method, *call)
        return answer, {*await it.viewer.managed_objects()}

    for _ in range(20):
        link = {"Interface": "link2"}
        made, there = await after(path, "Connection", "CreateSubflow", "sqa{sv}", "", 0, link)
        assert made in there
        await after(made, "Subflow", "SetBackup", "ba{sv}", True, {})
        assert await it.viewer.get(made, SUBFLOW, "BackupRequested") is True
        _, there = await after(made, "Subflow", "Destroy", "a{sv}", {})
        assert made not in there
        told, there = await after(path, "Connection", "AnnounceAddress", "sa{sv}", "10.0.3.1", {})
        assert told in there
        number = int(told.rpartition("/")[2])
        _, there = await after(path, "Connection", "RemoveAddress", "ya{sv}", number, {})
        assert told not in there
        call = (ROOT, "Manager", "AddEndpoint", "sasa{sv}")
        added, there = await after(*call, "10.0.2.1", ["subflow"], {})
        assert added in there
        _, there = await after(added, "Endpoint", "Remove", "a{sv}", {})
        assert added not in there


async def test_the_root_has_no_entry_among_the_objects(stage: MakeStage) -> None:
    it = await stage()

    assert ROOT not in await it.viewer.managed_objects()
    assert await it.viewer.get(ROOT, MANAGER, "Features")


# Who may


FLUSH: tuple[Any, ...] = (ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
CHOOSE: tuple[Any, ...] = (ROOT, MANAGER, "SetPathManager", "sa{sv}", "userspace", {})
LIMITS: tuple[Any, ...] = (ROOT, MANAGER, "SetLimits", "a{sv}", {"Subflows": Variant("u", 2)})


def _add(address: str) -> tuple[Any, ...]:
    return (ROOT, MANAGER, "AddEndpoint", "sasa{sv}", address, ["subflow"], {})


def _register(name: str) -> tuple[Any, ...]:
    return (ROOT, MANAGER, "RegisterPolicy", "osa{sv}", "/", name, {})


# What each rule of the page allows, and what not; in their order.
RULES = [
    ([FLUSH, LIMITS, _add("10.0.3.1")], [CHOOSE, _register("spare")]),
    ([_register("spare")], [_register("other"), FLUSH]),
    ([_add("10.0.2.1")], [_add("10.0.3.1"), FLUSH, LIMITS]),
]
DIALOGUE = "InteractiveAuthorizationRequired"


def _for(user: str, text: str) -> str:
    """Make a rule one for that user, who has a group of the same name."""
    return text.replace('"netdev"', f'"{user}"').replace('user == "spare"', f'user == "{user}"')


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("number", range(len(RULES)))
async def test_a_rule_of_the_page_allows_what_it_says_and_no_more(
    stage: MakeStage, number: int
) -> None:
    """To whom it says; the control is the time before it."""
    await stage()
    allowed, refused = RULES[number]
    text = blocks(API, "javascript")[number]

    async with await BusClient.connect("alice") as alice, await BusClient.connect("dora") as dora:
        alice.serve(lambda *_: None)
        for command in (*allowed, *refused):
            with pytest.raises(BusError, match=DIALOGUE):
                await alice.call(*command)
        with polkit_rules.rule(_for("alice", text)):

            async def may() -> bool:
                try:
                    await alice.call(*allowed[0])
                except BusError as error:
                    raise AssertionError(str(error)) from error
                return True

            await eventually(may)
            for command in allowed[1:]:
                await alice.call(*command)
            for command in refused:
                with pytest.raises(BusError, match=DIALOGUE):
                    await alice.call(*command)
            with pytest.raises(BusError, match=DIALOGUE):
                await dora.call(*FLUSH)


@pytest.mark.usefixtures("people")
async def test_the_rule_that_forbids_leaves_no_dialogue(stage: MakeStage) -> None:
    """To those outside the group; its members are asked as ever."""
    await stage()
    rules = blocks(API, "javascript")
    assert len(rules) == len(RULES) + 1

    async with await BusClient.connect("alice") as alice, await BusClient.connect("dora") as dora:
        with polkit_rules.rule(_for("alice", rules[-1])):

            async def denied() -> bool:
                with pytest.raises(BusError) as caught:
                    await dora.call(*FLUSH)
                return caught.value.name.endswith(".AccessDenied")

            await eventually(denied)
            with pytest.raises(BusError, match=DIALOGUE):
                await alice.call(*FLUSH)


# Tables


def _column(heading: str, number: int = 0) -> list[list[str]]:
    """Give the words in backquotes of a column, row by row."""
    return [re.findall(r"`([^`]+)`", row[number]) for row in rows(API, heading)]


def test_the_page_has_every_error() -> None:
    own = {name.rpartition(".")[2] for name in error_names.ERROR_NAMES.values()}
    named = [value for value in vars(error_names).values() if isinstance(value, str)]
    standard = {v.rpartition(".")[2] for v in named if re.search(r"DBus\.Error\.\w", v)}
    never = {"Disconnected", "ServiceUnknown", "NameHasNoOwner", "NoReply"}  # the bus says them

    told = {name for row in _column("## Errors") for name in row}
    assert told == (own | standard) - never


def test_the_page_has_the_bounds_as_they_are() -> None:
    assert [row[1] for row in rows(API, "## When it is too much")] == [
        f"{names.NAME_RATE}, {names.NAME_BURST}",
        f"{names.UID_RATE}, {names.UID_BURST}",
        f"{names.NAME_CALLS}, {names.UID_CALLS}",
        f"{names.CALL_BYTES}",
        f"{names.TRUSTED_CALLS}",
        f"{names.POLICIES}, {names.UID_POLICIES}",
    ]
    text = " ".join(API.read_text().split())
    for sentence in (
        f"every {names.CALLS_PER_ANSWER}nd does",
        f"with {names.CALLS_UNANSWERED} unanswered",
        f"After {names.DEAF_SECONDS:g} s of that, or {names.ANSWER_SECONDS:g} s without",
        f"again {names.BANNED_SECONDS:g} s later",
    ):
        assert sentence in text


def test_the_page_has_every_action_with_its_methods() -> None:
    told = {
        action: {method.rpartition(".")[2] for method in methods}
        for (action,), methods in zip(
            _column("## Who may what"), _column("## Who may what", 1), strict=True
        )
    }
    declared: dict[str, set[str]] = {}
    for interface in interfaces():
        for method in interface.methods:
            if method.action:
                declared.setdefault(method.action, set()).add(method.name)

    assert told == declared


def test_the_page_has_every_interface_and_every_example() -> None:
    served = {name for row in _column("## The tree", 1) for name in row}
    linked = set(re.findall(r"^\| \[[^]]+\]\(examples/([^)]+)\)", API.read_text(), re.MULTILINE))

    assert served - {"ObjectManager", "org.mptcpd1"} == {
        its.name.rpartition(".")[2] for its in interfaces()
    }
    assert f"`{documented()[-1].name}`" in API.read_text()
    assert linked == {file.name for file in EXAMPLES.iterdir() if file.is_file()}
