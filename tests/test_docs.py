"""The documents are true: every command line works as it stands, every name and link exists.

A block marked `console` holds what a reader types after "$ ".  Questions and calls are run on the
demo's stage; what installs is checked against the files that it takes.
"""
# SPDX-License-Identifier: BSD-3-Clause

import ast
import importlib.util
import re
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus import __version__
from mptcpd_dbus.bus import error_names
from mptcpd_dbus.config import PLUGIN_DIR
from mptcpd_dbus.ctl.commands import COMMANDS
from mptcpd_dbus.ctl.parser import parse
from mptcpd_dbus.log_fields import FIELDS
from tests import captures, manual
from tests.contract import REPOSITORY
from tests.documents import (
    ARCHITECTURE,
    CHANGELOG,
    CONTRIBUTING,
    DOCUMENTS,
    GLOSSARY,
    MANUAL,
    README,
    blocks,
    commands,
)
from tests.e2e.ctl import argv
from tests.e2e.stage import MANAGER, PORT
from tests.installation import NO_LISTENERS, expected
from tests.lab import polkit_rules, users
from tests.lab.app import converse
from tests.lab.bus import PrivateBus
from tests.lab.client import NAME, ROOT, BusClient, BusError
from tests.lab.daemon import Daemon
from tests.lab.hosts import SERVER, Lab
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.wait import eventually
from tests.test_config import MPTCPD_CONF

LONGEST = {CONTRIBUTING: 110, ARCHITECTURE: 220}

ON_THE_BUS = ("busctl", "gdbus")
OURS = ("mptcpctl",)
DAEMON = "mptcpd-dbus"
ENDLESS = {"monitor": "is owned by|DaemonRunning", "top": "link1 +0B/s"}


# Command lines that are not run, and what must hold of each


def _check_make(arguments: list[str]) -> None:
    text = "".join((REPOSITORY / file).read_text() for file in ("Makefile", "systemd/install.mk"))
    targets = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    for word in arguments:
        assert word in targets or word.startswith("ARGS="), word


VERBS = ("daemon-reload", "reload", "restart", "enable", "disable", "stop", "revert")


def _check_systemctl(arguments: list[str]) -> None:
    assert arguments[0] in VERBS
    units = [word for word in arguments[1:] if not word.startswith("-")]
    known = {"dbus.service", *(path.name for path in REPOSITORY.glob("systemd/*.service"))}
    assert set(units) <= known, units


def _check_journalctl(arguments: list[str]) -> None:
    if arguments[0] == "-u":
        _check_systemctl(["reload", *arguments[1:]])
    else:  # run in test_journal.py
        assert arguments[-1].partition("=")[0] in FIELDS


def _check_python(arguments: list[str]) -> None:
    assert arguments[0] == "-m"
    assert importlib.util.find_spec(arguments[1]), arguments[1]


def _check_user(arguments: list[str]) -> None:
    assert arguments == [users.DAEMON]


def _check_apt(arguments: list[str]) -> None:
    command, *names = arguments
    assert command == "install"
    if names[0].startswith("./"):
        (name,) = names
        assert re.fullmatch(r"\./build/deb/mptcpd-dbus_\d[\d.]*_\w+\.deb", name)
        assert f"_{__version__}_" in name
    else:
        wanted = (REPOSITORY / "systemd/debian/control").read_text()
        assert all(f" {name}" in wanted or name == "build-essential" for name in names)


def _check_install(arguments: list[str]) -> None:
    """To where systemd looks for what changes the unit."""
    unit = Path(_installed(REPOSITORY / "systemd/mptcpd-dbus.service")).name
    directory = f"/etc/systemd/system/{unit}.d"
    assert arguments == ["-Dm", "644", _installed(NO_LISTENERS), "-t", directory]


def _check_ip(arguments: list[str]) -> None:
    """Typed in tests/system."""
    assert arguments[0] == "mptcp"


def _installed(source: Path) -> str:
    return next(target for target, its in expected().items() if its == source)


def _check_nothing(arguments: list[str]) -> None:
    assert not arguments


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": _check_make,
    "apt": _check_apt,
    "systemctl": _check_systemctl,
    "systemd-sysusers": _check_nothing,
    "userdel": _check_user,
    "install": _check_install,
    "ip": _check_ip,
    "journalctl": _check_journalctl,
    "python": _check_python,
    "python3": _check_python,
}


@pytest.mark.parametrize(
    "document",
    [README, CONTRIBUTING, manual.DAEMON, manual.CONFIGURATION],
    ids=lambda path: path.name,
)
def test_what_is_typed_to_build_and_install_fits_the_files(document: Path) -> None:
    typed = [words[1:] if words[0] == "sudo" else words for words in commands(document)]
    typed = [words for words in typed if words[0] not in (*ON_THE_BUS, *OURS, DAEMON)]
    assert typed

    for program, *arguments in typed:
        CHECKS[Path(program).name](arguments)


# Command lines that are run

Example = Callable[[], Awaitable[Lab]]


@pytest.fixture
def example(lab: Lab, daemon: Callable[..., Daemon]) -> Example:
    """Give what sets the stage that the README describes."""

    async def make() -> Lab:
        lab.sysctl("client", "net.mptcp.path_manager", "userspace")
        (configuration,) = blocks(README, "ini")
        config = str(write_configuration(configuration))
        await daemon().start("--config", config, "--plugin-dir", str(shipped_plugins()))
        client, server = lab.app("client"), lab.app("server")
        listener, _ = await server.call("listen", address=SERVER[4], port=PORT)
        await converse(client, server, listener, address=SERVER[4], port=PORT)
        return lab

    return make


def _with(programs: tuple[str, ...]) -> list[tuple[Path, tuple[str, ...]]]:
    """Give the documents that have lines with one of these programs."""
    on_stage = (README, manual.DAEMON, manual.CONTRACT)  # the others' want a stage of their own
    documents = (*DOCUMENTS, MANUAL) if programs is OURS else on_stage
    return [(d, programs) for d in documents if any(w[0] in programs for w in commands(d))]


@pytest.mark.parametrize(("document", "programs"), [*_with(OURS), *_with(ON_THE_BUS)])
async def test_every_command_line_works(
    example: Example, tmp_path: Path, document: Path, programs: tuple[str, ...]
) -> None:
    """In the document's order; what runs on does, and a monitor must have heard the others."""
    lab = await example()
    typed = [words for words in commands(document) if words[0] in programs]
    heard = tmp_path / "monitor"

    for line in typed:
        words = argv(*line[1:]) if line[0] in OURS else line
        command = "".join(line[1:2])
        if command in ENDLESS:
            printed = tmp_path / command
            with printed.open("wb") as out:
                lab.popen("client", words, stdout=out)
            await eventually(partial(_says, printed, ENDLESS[command]), within=15)
        elif command == "run-plugin":
            await _run_plugin(lab, words, tmp_path)
        else:
            lab.run("client", words)

    def heard_all() -> bool:
        told = heard.read_text()
        return all(f"{name} " in told for name in ("NewSubflow", "SubflowClosed"))

    if heard.exists():
        await eventually(heard_all)
    with pytest.raises(subprocess.CalledProcessError):  # the control: a mistake would show
        lab.run("client", ["busctl", "introspect", NAME, f"{ROOT}/connection/2"])


def _says(printed: Path, wanted: str) -> bool:
    return bool(re.search(wanted, printed.read_text()))


async def _run_plugin(lab: Lab, words: list[str], directory: Path) -> None:
    """Have the plugin that the README shows decide until the end."""
    (plugin,) = blocks(README, "python")
    file, told = directory / words[-1], directory / "told"
    file.write_text(plugin)
    with told.open("wb") as log:
        lab.popen("client", [*words[:-1], str(file)], stderr=log)
    await eventually(lambda: "plugin spare decides" in told.read_text(), within=10)


async def test_the_daemon_starts_as_its_man_page_says(daemon: Callable[..., Daemon]) -> None:
    """With the C daemon's file, and with our plugins where the lab has them."""
    theirs = write_configuration(MPTCPD_CONF.format(directory="/usr/lib/mptcpd"))
    places = {"/etc/mptcpd/mptcpd.conf": str(theirs), PLUGIN_DIR: str(shipped_plugins())}
    typed = [words[2:] for words in commands(manual.DAEMON) if words[:2] == ["sudo", DAEMON]]
    assert len(typed) == 2

    for arguments in typed:
        it = daemon()
        await it.start(*(places.get(word, word) for word in arguments))
        assert await it.stop() == 0


def test_every_command_has_an_example() -> None:
    typed = {parse(words[1:]).command.name for words in commands(README) if words[0] in OURS}

    assert typed == {command.name for command in COMMANDS}


def test_every_command_line_within_a_text_can_be_typed() -> None:
    """In documents, man pages, and what the program itself says."""
    files = [*DOCUMENTS, *manual.PAGES, *(REPOSITORY / "mptcpd_dbus/ctl").glob("*.py")]
    texts = "\n".join(file.read_text() for file in files).replace(r"\-", "-")
    lines = re.findall(r"`mptcpctl ([a-z-][^`{]*)`", texts)
    lines += re.findall(r'^\.BR? "?mptcpctl (\w[^"\n]+)"?', texts, re.MULTILINE)

    assert len(lines) > 8
    for line in lines:
        parse([*line.removesuffix("--help").split(), "--help"])


async def test_what_the_readme_shows_of_mptcpctl_is_what_it_prints() -> None:
    """But for tokens, ports and what was measured, which are others each time."""
    shown = captures.in_readme()

    assert shown
    assert {name: _shape(text) for name, text in shown.items()} == {
        name: _shape(text) for name, text in (await captures.taken(shown)).items()
    }


def _shape(text: str) -> str:
    """Leave what stays; that nothing was sent is such a thing, and that something was."""
    unique = r"\b[0-9a-f]{8}\b|(?<=:)\d{5}\b|\d\d:\d\d:\d\d"
    measured = r"\b[1-9][\d.]*[kMG]?B/s|[\d.]+ms|\d+ +\d+(?= +(?:no|here|-)$)"
    return re.sub(" +", " ", re.sub(f"(?m){unique}|{measured}", "?", text))


def test_the_errors_that_the_readme_explains_are_those_of_the_daemon() -> None:
    explained = set(re.findall(r"^\| `([A-Z]\w+)`", README.read_text(), re.MULTILINE))
    own = {name.rpartition(".")[2] for name in error_names.ERROR_NAMES.values()}
    standard = {
        error_names.ACCESS_DENIED,
        error_names.INTERACTIVE_AUTHORIZATION_REQUIRED,
        error_names.LIMITS_EXCEEDED,
    }

    assert len(explained) > 5
    assert explained <= own | {name.rpartition(".")[2] for name in standard}


async def test_the_polkit_rule_allows_what_it_says_and_no_more(
    people: None, bus: PrivateBus, example: Example
) -> None:
    """For a member of the group; alice is the one of her own."""
    del people, bus
    await example()
    (rule,) = blocks(README, "javascript")
    assert (REPOSITORY / "polkit/50-mptcpd-dbus.rules").read_text().endswith(f"\n\n{rule}")
    flush: tuple[Any, ...] = (ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
    choose: tuple[Any, ...] = (ROOT, MANAGER, "SetPathManager", "sa{sv}", "kernel", {})

    async with await BusClient.connect("alice") as alice:
        with pytest.raises(BusError, match="InteractiveAuthorizationRequired"):
            await alice.call(*flush)
        with polkit_rules.rule(rule.replace('"netdev"', '"alice"')):

            async def allowed() -> bool:
                try:
                    await alice.call(*flush)
                except BusError as error:
                    raise AssertionError(str(error)) from error
                return True

            await eventually(allowed)
            with pytest.raises(BusError, match="InteractiveAuthorizationRequired"):
                await alice.call(*choose)


# Names, links, sizes


def _defined(source: str) -> set[str]:
    """Give the dotted names that a module defines."""
    found = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.ClassDef():
                    found.add(prefix + node.name)
                    walk(node.body, f"{prefix}{node.name}.")
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.add(prefix + node.name)
                case ast.Assign():
                    names = (n for t in node.targets for n in ast.walk(t))
                    found.update(prefix + n.id for n in names if isinstance(n, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)
                case _:
                    pass

    walk(ast.parse(source).body, "")
    return found


def test_every_name_in_the_architecture_exists() -> None:
    places = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", ARCHITECTURE.read_text())
    assert len(places) > 40

    for file, name in places:
        path = REPOSITORY / "mptcpd_dbus" / file
        assert path.is_file(), file
        assert not name or name in _defined(path.read_text()), f"{file}:{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document.read_text())

    for link, anchor in links:
        target = document.parent / link if link else document
        assert link.startswith("https://") or target.is_file(), link
        assert not anchor or anchor in _anchors(target), f"{link}#{anchor}"


def _anchors(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as the places that show Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", LONGEST, ids=lambda path: path.name)
def test_a_document_that_must_be_read_whole_is_short(document: Path) -> None:
    assert len(document.read_text().splitlines()) <= LONGEST[document]


def test_the_changelog_tells_what_each_interface_gained() -> None:
    headings = re.findall(r"^### (.*)$", CHANGELOG.read_text(), re.MULTILINE)

    assert {"D-Bus API", "Plugin API"} <= set(headings)


def test_the_glossary_has_one_line_per_word_in_order() -> None:
    words = re.findall(r"^- \*\*([^*]+)\*\*: .+[.;)]$", GLOSSARY.read_text(), re.MULTILINE)
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("- ")]

    assert len(words) == len(lines) > 20
    assert words == sorted(words, key=str.lower)
