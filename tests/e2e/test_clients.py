"""What the clients that people have make of the daemon: GLib, busctl(1), gdbus(1), an XML parser.

They are strangers: each believes only what the D-Bus specification promises, and the kernel and
GetManagedObjects say whether it believes the truth.
"""
# SPDX-License-Identifier: BSD-3-Clause

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, MANAGER, PORT, SUBFLOW, Stage
from tests.lab.app import exchange
from tests.lab.client import BUS, NAME, ROOT, BusError, Signal, busctl
from tests.lab.hosts import SERVER
from tests.lab.plugin_files import shipped_plugins
from tests.lab.program import Program
from tests.lab.sandbox import REPOSITORY, readable_repository
from tests.lab.users import as_user
from tests.lab.wait import eventually

pytestmark = pytest.mark.also_booted

MANAGES, PROPERTIES, INTROSPECTS = (
    f"{BUS}.{name}" for name in ("ObjectManager", "Properties", "Introspectable")
)
ERROR = f"{BUS}.Error."
DOCUMENTATION = "org.gtk.GDBus.DocString"
CALLED = f"{NAME}.Policy"  # what clients serve
DTD = "/usr/share/xml/dbus-1/introspect.dtd"  # of the package libdbus-1-dev
ONE_CONNECTION = ("connection/1", "connection/1/subflow/1")


async def _life(play: Stage) -> str:
    """Let a connection come, change in all its parts, and stay; give its path."""
    listener = await play.listener()
    talk, _ = await play.client.call("connect", address=SERVER[4], port=PORT)
    body = await play.heard("NewConnection")
    other = await play.server.call("accept", listener=listener)
    await exchange(play.client, talk, play.server, other)
    await play.heard("ConnectionEstablished")
    path = str(body[0])
    subflow = await play.create_subflow(path, LocalAddress="10.0.2.1")
    await play.command(subflow, SUBFLOW, "SetBackup", "ba{sv}", True, {})
    return path


async def _death(play: Stage) -> None:
    """Let every connection go, and a second subflow before it."""
    await play.command(f"{ROOT}/connection/1/subflow/2", SUBFLOW, "Destroy", "a{sv}", {})
    await play.heard("SubflowClosed")
    await play.client.call("close_all")
    await play.heard("ConnectionClosed")
    await play.server.call("close_all")


@pytest.mark.usefixtures("people")
async def test_glibs_object_manager_client_follows_everything(stage: MakeStage) -> None:
    """A desktop's way, as an ordinary user: added, changed, removed, and the view at each end."""
    play = await stage()
    script = f"{readable_repository()}/tests/e2e/object_manager_client.py"
    argv = as_user("alice", ["/usr/bin/python3", "-I", script])

    async with await Program.start(*argv) as glib:

        def saw(*what: Any) -> Callable[[str], bool]:
            return lambda line: json.loads(line)[: len(what)] == list(what)

        async def views(number: int) -> dict[str, Any]:
            glib.ask()

            def answers() -> list[str]:
                return [line for line in glib.said if saw("view")(line)]

            await eventually(lambda: len(answers()) == number)
            view = json.loads(answers()[-1])[1]
            assert isinstance(view, dict)
            return view

        await glib.line(saw("ready"))
        assert await views(1) == await play.viewer.managed_objects()

        path = await _life(play)
        for added in (path, f"{path}/subflow/1", f"{path}/subflow/2"):
            await glib.line(saw("added", added))
        backup = {"BackupRequested": True}
        await glib.line(saw("changed", f"{path}/subflow/2", SUBFLOW, backup))
        alive = await views(2)
        assert alive == await play.viewer.managed_objects()
        assert alive[f"{path}/subflow/2"][SUBFLOW]["LocalAddress"] == "10.0.2.1"

        await _death(play)
        for removed in (f"{path}/subflow/2", f"{path}/subflow/1", path):
            await glib.line(saw("removed", removed))
        assert await views(3) == await play.viewer.managed_objects()


async def test_busctl_shows_the_tree_the_members_and_the_messages(stage: MakeStage) -> None:
    """Its tree, introspect and monitor, before and after a connection."""
    play = await stage()
    assert "/connection" not in _output("busctl", "tree", "--list", NAME)

    async with await Program.start("busctl", "--json=short", "monitor", NAME) as monitor:
        await monitor.line(lambda line: line.startswith("Monitoring"))
        path = await _life(play)
        assert path in _output("busctl", "tree", "--list", NAME).splitlines()
        assert _introspected(path) >= {
            (".CreateSubflow", "method", "sqa{sv}", "o"),
            (".Token", "property", "u", str(_token(play))),
            (".State", "property", "s", '"established"'),
        }
        signals = _introspected(ROOT)
        assert (".NewConnection", "signal", "ousqsqbb", "-") in signals
        assert busctl("get-property", NAME, path, CONNECTION, "Token") == _token(play)

        await _death(play)
        await monitor.line(lambda line: '"ConnectionClosed"' in line)
        heard = [json.loads(line) for line in monitor.said if line.startswith("{")]

    created = next(message for message in heard if message.get("member") == "NewConnection")
    assert created["path"] == ROOT
    assert created["payload"]["type"] == "ousqsqbb"
    assert created["payload"]["data"][0] == path
    assert {"InterfacesAdded", "PropertiesChanged"} <= {m.get("member") for m in heard}
    assert "/connection" not in _output("busctl", "tree", "--list", NAME)


@pytest.mark.usefixtures("people")
async def test_gdbus_shows_the_members_and_the_signals(stage: MakeStage) -> None:
    """Its introspect and monitor, as an ordinary user."""
    play = await stage()
    monitoring = ["gdbus", "monitor", "--system", "--dest", NAME]

    async with await Program.start(*as_user("alice", monitoring)) as monitor:
        await monitor.line(lambda line: "is owned by" in line)
        path = await _life(play)
        whole = ["gdbus", "introspect", "--system", "--dest", NAME, "--object-path", ROOT]
        shown = _output(*as_user("alice", [*whole, "--recurse"]))
        for node in ONE_CONNECTION:
            assert f"node {ROOT}/{node} {{" in shown
        assert f"readonly u Token = {_token(play)};" in shown
        await _death(play)
        end = f"{ROOT}: {MANAGER}.ConnectionClosed (objectpath '{path}', uint32 "
        await monitor.line(lambda line: line.startswith(end))

    changed = f"{path}/subflow/2: {PROPERTIES}.PropertiesChanged"
    assert any(line.startswith(changed) for line in monitor.said)
    assert any(line.startswith(f"{ROOT}: {MANAGES}.InterfacesRemoved") for line in monitor.said)


async def test_the_served_xml_is_the_contract_valid_and_documented(
    stage: MakeStage, tmp_path: Path
) -> None:
    """Every object's: the contract's files are what is served, and each member has a word."""
    play = await stage("--plugin-dir", str(shipped_plugins()), "--load-plugins", "foo")
    path = await _life(play)
    await play.command(ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.3.1", ["subflow"], {})
    announced = await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.3.1", {})
    assert announced in await play.viewer.managed_objects()
    seen = {}

    for place in (ROOT, *await play.viewer.managed_objects()):
        xml = await play.viewer.call(place, INTROSPECTS, "Introspect")
        file = tmp_path / "served.xml"
        file.write_text(xml)
        _output("xmllint", "--noout", "--nonet", "--dtdvalid", DTD, str(file))
        for interface in _interfaces(xml):
            name = interface.attrib["name"]
            if name.startswith(NAME):
                seen[name] = _canonical(interface)
                assert not [m.attrib for m in _members(interface) if not _documented(m)]
                assert not [a.attrib for a in interface.iter("arg") if not a.get("name")]

    files = (REPOSITORY / "dbus").glob(f"{NAME}.*.xml")
    golden = {file.stem: _canonical(_interfaces(file.read_text())[0]) for file in files}
    assert seen == {name: xml for name, xml in golden.items() if name != CALLED}
    # The controls: the checks see what they look for.
    file.write_text(xml.replace("<interface name=", "<interface nam=", 1))
    with pytest.raises(subprocess.CalledProcessError):
        _output("xmllint", "--noout", "--nonet", "--dtdvalid", DTD, str(file))
    assert not _documented(ET.Element("method"))


async def test_every_unknown_thing_has_its_standard_error(stage: MakeStage) -> None:
    """Object, interface, method, property and signature, and never more than a line."""
    play = await stage()
    path = await _life(play)
    nowhere = f"{ROOT}/connection/99"
    calls: tuple[tuple[Any, ...], ...] = (
        ("UnknownObject", nowhere, CONNECTION, "GetStatistics"),
        ("UnknownObject", nowhere, PROPERTIES, "GetAll", "s", CONNECTION),
        ("UnknownObject", nowhere, INTROSPECTS, "Introspect"),
        ("UnknownObject", f"{path}x", CONNECTION, "GetStatistics"),
        ("UnknownInterface", ROOT, CONNECTION, "GetStatistics"),
        ("UnknownInterface", path, MANAGES, "GetManagedObjects"),
        ("UnknownInterface", path, "org.example.Other", "GetStatistics"),
        ("UnknownInterface", f"{ROOT}/connection", PROPERTIES, "GetAll", "s", CONNECTION),
        ("UnknownInterface", path, PROPERTIES, "Get", "ss", MANAGER, "Version"),
        ("UnknownInterface", path, PROPERTIES, "GetAll", "s", "org.example.Other"),
        ("UnknownMethod", path, CONNECTION, "Nothing"),
        ("UnknownMethod", path, PROPERTIES, "Nothing"),
        ("UnknownProperty", path, PROPERTIES, "Get", "ss", CONNECTION, "Nothing"),
        ("UnknownProperty", path, PROPERTIES, "Get", "ss", "", "Nothing"),
        ("InvalidArgs", ROOT, MANAGER, "GetConnection", "s", "1"),
        ("InvalidArgs", ROOT, MANAGER, "GetConnection"),
        ("InvalidArgs", ROOT, PROPERTIES, "Get", "s", MANAGER),
        ("UnknownMethod", path, None, "Nothing"),
    )
    for error, *call in calls:
        with pytest.raises(BusError) as caught:
            await play.viewer.call(*call)
        assert caught.value.name == ERROR + error, call
        assert "\n" not in caught.value.text
        assert ".py" not in caught.value.text

    # A call need not name an interface, says the specification; where none is named, one is found.
    by_token: tuple[Any, ...] = (ROOT, None, "GetConnection", "u", _token(play))
    assert await play.viewer.call(*by_token) == path
    above: tuple[Any, ...] = ("/org", None, "Introspect")
    assert '<node name="mptcpd1"/>' in await play.viewer.call(*above)


async def test_signals_come_in_the_promised_order(stage: MakeStage) -> None:
    """An object is withdrawn after anything has named it, and is announced before anything does.

    But those of a new connection are announced when it has settled.
    """
    play = await stage()
    path = await _life(play)
    await _death(play)
    await play.viewer.signal(lambda s: s.member == "InterfacesRemoved" and s.body[0] == path)
    heard = play.viewer.signals

    for place in (path, f"{path}/subflow/1", f"{path}/subflow/2"):
        [added] = _when(heard, "InterfacesAdded", place)
        [removed] = _when(heard, "InterfacesRemoved", place)
        changed = _when(heard, "PropertiesChanged", place)
        named = [n for n, s in enumerate(heard) if s.interface == MANAGER and place in s.body]
        assert added < min([*changed, removed]), place
        assert max([added, *named, *changed]) < removed, place
        if place == f"{path}/subflow/2":
            assert changed
            assert added < min(named)
            assert named, place

    [closed] = [n for n, s in enumerate(heard) if s.member == "ConnectionClosed"]
    [destroyed] = _when(heard, "InterfacesRemoved", f"{path}/subflow/2")
    ends = _when(heard, "InterfacesRemoved", f"{path}/subflow/1")
    ends += _when(heard, "InterfacesRemoved", path)
    changes = [n for n, s in enumerate(heard) if s.member == "PropertiesChanged"]
    assert max([destroyed, *changes]) < closed < min(ends)


def _when(heard: list[Signal], member: str, path: str) -> list[int]:
    """Give the places of a standard signal about an object: by its body, or from its own path."""
    about = [(s.member, s.body[0] if s.path == ROOT else s.path) for s in heard]
    return [number for number, what in enumerate(about) if what == (member, path)]


def _token(play: Stage) -> int:
    [token] = {row[0] for row in play.sockets()}
    assert isinstance(token, int)
    return token


def _output(*argv: str) -> str:
    ran = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    return ran.stdout


def _introspected(path: str) -> set[tuple[str, ...]]:
    text = _output("busctl", "introspect", "--no-legend", NAME, path)
    return {tuple(line.split()[:4]) for line in text.splitlines()}


def _interfaces(xml: str) -> list[ET.Element]:
    return list(ET.fromstring(xml).iter("interface"))  # noqa: S314 - the daemon's own


def _members(interface: ET.Element) -> list[ET.Element]:
    return [interface, *(m for m in interface if m.tag in ("method", "property", "signal"))]


def _documented(member: ET.Element) -> bool:
    notes = [a for a in member.findall("annotation") if a.get("name") == DOCUMENTATION]
    return len(notes) == 1 and bool(notes[0].attrib["value"].strip())


def _canonical(interface: ET.Element) -> str:
    return ET.canonicalize(ET.tostring(interface), strip_text=True)
