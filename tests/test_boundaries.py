"""Who may import whom: the pure core, policies, the two edges, and the one that knows both."""
# SPDX-License-Identifier: BSD-3-Clause

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = "mptcpd_dbus"
IMPURE = {"asyncio", "pathlib", "select", "socket", "subprocess", "os", "threading"}
EDGES = {"kernel": "pyroute2", "bus": "dbus_next"}
KNOW_BOTH_EDGES = ("mptcpd_dbus/daemon.py", "mptcpd_dbus/remote/program.py")
CLIENT = "ctl"
REMOTE = "remote"
DAEMONS_OWN = ("daemon", "engine", "path_manager", "commander", "reconciler", "policy.host")
CLIENT_KNOWS = (
    "__version__",
    "ctl",
    "core.addresses",
    "core.errors",
    "core.types",
    "config",
    "remote.program",
    *(f"bus.{name}" for name in ("transport", "message", "error_names", "names")),
)
EDGELESS = ("policy", "plugin.py", "testing")
FOR_TESTS = "testing"
TERMINAL = {  # what is slow to import, and who may
    "rich": "mptcpd_dbus/ctl/screen.py",
    f"{OURS}.ctl.screen": "mptcpd_dbus/ctl/top.py",
}


def imported(path: str, source: str) -> set[str]:
    """Give the dotted names that *source*, the file *path*, imports, wherever in it."""
    package = path.split("/")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def violations(path: str, source: str) -> Iterator[str]:
    """Give each import that *path* must not have, with the rule."""
    top, part, *_ = [*path.split("/"), ""]
    names = imported(path, source)
    for name in sorted(names):
        for words in _broken(top, part, name):
            yield f"{path} imports {name}: {words}"
        for library, user in TERMINAL.items():
            if _within(name, library) and path != user:
                yield f"{path} imports {name}: only {user} may"
    edges = {edge for edge in EDGES if any(_within(n, f"{OURS}.{edge}") for n in names)}
    if top == OURS and part in EDGELESS and edges:
        yield f"{path} imports an edge: policies know none"
    if part in EDGES and edges - {part}:
        yield f"{path} imports the other edge"
    if len(edges) > 1 and path not in KNOW_BOTH_EDGES:
        yield f"{path} imports both edges: only {' and '.join(KNOW_BOTH_EDGES)} may"


def _broken(top: str, part: str, name: str) -> Iterator[str]:
    """Give the rules that an import of *name* breaks there."""
    first = name.split(".", maxsplit=1)[0]
    if (top, part) == (OURS, "core"):
        if first == OURS and not _within(name, f"{OURS}.core"):
            yield "the core imports nothing of ours but the core"
        if first != OURS and (first in IMPURE or first not in sys.stdlib_module_names):
            yield "the core is pure"
    for edge, library in EDGES.items():
        if first == library and (top, part) != (OURS, edge):
            yield f"only {OURS}/{edge} may"
    if top == "plugins" and first == OURS and not _within(name, f"{OURS}.plugin"):
        yield f"a plugin imports only {OURS}.plugin"
    yield from _broken_by_the_client(part, name)
    if part in EDGES and _within(name, f"{OURS}.policy"):
        yield "an edge knows no policy"
    if part != FOR_TESTS and _within(name, f"{OURS}.{FOR_TESTS}"):
        yield "it is for tests"


def _broken_by_the_client(part: str, name: str) -> Iterator[str]:
    """Give the rules of the wall between the daemon and mptcpctl that an import breaks."""
    known = any(_within(name, f"{OURS}.{its}") for its in CLIENT_KNOWS)
    if part == CLIENT and _within(name, OURS) and not known:
        yield "mptcpctl knows the bus, not the daemon"
    if part == REMOTE and any(_within(name, f"{OURS}.{its}") for its in DAEMONS_OWN):
        yield "a program knows the daemon by the bus"
    for client, others in ((CLIENT, (CLIENT,)), (REMOTE, (CLIENT, REMOTE))):
        if part not in others and _within(name, f"{OURS}.{client}"):
            yield "the daemon does not know its client"


def _within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def _files() -> list[Path]:
    return [*ROOT.glob(f"{OURS}/**/*.py"), *ROOT.glob("plugins/**/*.py")]


def test_no_module_imports_what_it_must_not_know() -> None:
    files = _files()
    assert len(files) > 50

    found = [
        violation
        for file in files
        for violation in violations(file.relative_to(ROOT).as_posix(), file.read_text())
    ]

    assert found == []


@pytest.mark.parametrize("path", KNOW_BOTH_EDGES)
def test_what_may_know_both_edges_does(path: str) -> None:
    source = (ROOT / path).read_text()

    assert list(violations(path, source)) == []
    assert list(violations("mptcpd_dbus/engine.py", source)) != []


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("mptcpd_dbus/core/x.py", "import mptcpd_dbus.engine", "nothing of ours but the core"),
        ("mptcpd_dbus/core/x.py", "from mptcpd_dbus import engine", "nothing of ours"),
        ("mptcpd_dbus/core/x.py", "from ..engine import Engine", "nothing of ours"),
        ("mptcpd_dbus/core/x.py", "def f():\n    import asyncio", "the core is pure"),
        ("mptcpd_dbus/core/x.py", "import os.path", "the core is pure"),
        ("mptcpd_dbus/core/x.py", "from socket import AF_INET", "the core is pure"),
        ("mptcpd_dbus/core/x.py", "import threading", "the core is pure"),
        ("mptcpd_dbus/core/x.py", "import pydantic", "the core is pure"),
        ("mptcpd_dbus/kernel/x.py", "from mptcpd_dbus.bus import names", "the other edge"),
        ("mptcpd_dbus/bus/x.py", "from mptcpd_dbus import kernel", "the other edge"),
        ("mptcpd_dbus/bus/x.py", "from ..kernel.live import LiveKernel", "the other edge"),
        ("mptcpd_dbus/engine.py", "import pyroute2", "only mptcpd_dbus/kernel may"),
        ("mptcpd_dbus/bus/x.py", "from pyroute2 import IPRoute", "only mptcpd_dbus/kernel may"),
        ("mptcpd_dbus/kernel/x.py", "from dbus_next import aio", "only mptcpd_dbus/bus may"),
        ("plugins/x.py", "from mptcpd_dbus.core import events", "only mptcpd_dbus.plugin"),
        ("plugins/x.py", "import mptcpd_dbus", "only mptcpd_dbus.plugin"),
        ("plugins/x.py", "from mptcpd_dbus.policy import door", "only mptcpd_dbus.plugin"),
        ("mptcpd_dbus/policy/x.py", "from mptcpd_dbus.bus import names", "policies know none"),
        ("mptcpd_dbus/policy/x.py", "from ..kernel import live", "policies know none"),
        ("mptcpd_dbus/plugin.py", "import mptcpd_dbus.kernel.live", "policies know none"),
        ("mptcpd_dbus/testing/x.py", "from mptcpd_dbus.bus import names", "policies know none"),
        ("mptcpd_dbus/engine.py", "from mptcpd_dbus.testing import play", "it is for tests"),
        ("mptcpd_dbus/bus/x.py", "from mptcpd_dbus.policy import host", "knows no policy"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.engine import Engine", "knows the bus"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.bus import objects", "knows the bus"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.core.state import State", "knows the bus"),
        ("mptcpd_dbus/ctl/x.py", "import dbus_next", "only mptcpd_dbus/bus may"),
        ("mptcpd_dbus/ctl/x.py", "from rich.table import Table", "only mptcpd_dbus/ctl/screen.py"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.ctl.screen import Screen", "only mptcpd_dbus/"),
        ("mptcpd_dbus/daemon.py", "from mptcpd_dbus.ctl import view", "not know its client"),
        ("mptcpd_dbus/daemon.py", "from mptcpd_dbus.remote import mirror", "not know its client"),
        ("mptcpd_dbus/remote/x.py", "from mptcpd_dbus.engine import Engine", "by the bus"),
    ],
)
def test_an_import_that_must_not_be_is_named(path: str, source: str, words: str) -> None:
    (violation, *_) = violations(path, source)

    assert path in violation
    assert words in violation


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mptcpd_dbus/core/x.py", "from mptcpd_dbus.core.types import FourTuple\nimport errno"),
        ("mptcpd_dbus/core/x.py", "from .types import FourTuple"),
        ("mptcpd_dbus/kernel/x.py", "import pyroute2\nfrom mptcpd_dbus.core import events"),
        ("mptcpd_dbus/kernel_protocol.py", "from mptcpd_dbus.bus import names"),
        ("plugins/x.py", "from mptcpd_dbus.plugin import Plugin\nimport asyncio"),
        ("mptcpd_dbus/policy/x.py", "from mptcpd_dbus.engine import Engine\nimport asyncio"),
        ("mptcpd_dbus/bus/x.py", "from mptcpd_dbus.policy_protocol import Policies"),
        ("mptcpd_dbus/testing/x.py", "from mptcpd_dbus.testing.play import World"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.bus.transport import Transport\nimport json"),
        ("mptcpd_dbus/ctl/x.py", "from mptcpd_dbus.ctl.view import View"),
    ],
)
def test_an_import_that_may_be_is_not_named(path: str, source: str) -> None:
    assert list(violations(path, source)) == []
