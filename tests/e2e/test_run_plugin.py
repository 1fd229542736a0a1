"""A plugin's file beside the daemon: it sees and can do what it could inside; how it ends.

That the plugins of ours work so is in their own tests, which run both ways.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import re
import signal

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl
from tests.e2e.plugin_program import PluginProgram
from tests.e2e.stage import CONNECTION, SUBFLOW, Stage
from tests.lab.hosts import SERVER
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import readable_repository
from tests.lab.wait import eventually

FAILED, NOT_AUTHORISED, INTERRUPTED = 1, 4, 130

SEES = """
    import logging
    from mptcpd_dbus.plugin import Plugin

    class Sees(Plugin):
        '''Writes down what it hears, and all that there is'''

        priority = PRIORITY

        def _tell(self, what, *pictures):
            log = logging.getLogger("mptcpd_dbus.plugin")
            log.info("SEEN NAME %s: %s", what, " ".join(map(repr, pictures)))

        async def listener_created(self, listener):
            if listener.port != 4999:
                return
            pm = self.pm
            self._tell("connections", *pm.connections)
            self._tell("own", *self.connections)
            self._tell("interfaces", *pm.interfaces)
            self._tell("endpoints", *pm.endpoints)
            self._tell("listeners", *pm.listeners)
            self._tell("host", pm.limits, pm.path_manager, pm.ready, pm.has_link("10.0.2.1"))

        async def new_interface(self, interface): self._tell("interface", interface)
        async def delete_interface(self, interface): self._tell("no interface", interface)
        async def new_local_address(self, interface, address): self._tell("+", interface, address)
        async def delete_local_address(self, interface, address):
            self._tell("-", interface, address)
        async def new_connection(self, c): self._tell("new", c)
        async def connection_established(self, c): self._tell("established", c)
        async def connection_closed(self, c): self._tell("closed", c)
        async def new_address(self, c, address): self._tell("address", c, address)
        async def address_removed(self, c, address): self._tell("no address", c, address)
        async def new_subflow(self, c, subflow): self._tell("subflow", subflow)
        async def subflow_closed(self, c, subflow): self._tell("no subflow", subflow)
        async def subflow_priority(self, c, subflow): self._tell("priority", subflow)
        async def ready(self): self._tell("ready")
"""

DOES = """
    import logging
    from mptcpd_dbus.plugin import KernelRefused, Plugin, SubflowFailed

    class Does(Plugin):
        '''Commands all there is to command, and writes down what came of it'''

        priority = PRIORITY

        def _tell(self, *what):
            log = logging.getLogger("mptcpd_dbus.plugin")
            log.info("DONE NAME %s", " ".join(map(str, what)))

        async def connection_established(self, c):
            pm = self.pm
            subflow = await pm.create_subflow(c, interface="link2", local_port=PORT, backup=True)
            self._tell("created", subflow.local_address, subflow.backup_requested)
            self._tell("there", [s.four_tuple.local_address for s in pm.now(c).subflows])
            await pm.set_backup(subflow, backup=False)
            self._tell("backup", [s.backup_requested for s in pm.now(c).subflows])
            self._tell("rtt", pm.subflow_statistics(subflow)["rtt"] > 0)
            self._tell("subflows", pm.statistics(c)["subflows"])
            self._tell("id", pm.ids.get(c, "10.0.3.1"))
            address = await pm.announce_address(c, "10.0.3.1", address_id=9)
            self._tell("announced", address.id, address.address, address.port, address.remote)
            self._tell("known", sorted(a.id for a in pm.now(c).local_addresses))
            await pm.remove_address(c, 9)
            self._tell("known", sorted(a.id for a in pm.now(c).local_addresses))
            await pm.destroy_subflow(subflow)
            third = await pm.create_subflow(c, interface="link3")
            await pm.abandon(c, third.local_id)
            try:
                await pm.create_subflow(c, "10.0.2.2", 9, interface="link2")
            except SubflowFailed as error:
                self._tell(str(error).partition("not made")[2])
            place = pm.listen("10.0.1.1", 4321)
            self._tell("listens", place)
            pm.unlisten(place)
            endpoint = await pm.add_endpoint("10.0.2.1", ("subflow",), interface="link2")
            self._tell("endpoint", endpoint)
            self._tell("there", len(pm.endpoints))
            await pm.set_endpoint_flags(endpoint, ("subflow", "backup"))
            self._tell("flags", pm.endpoints[0].flags)
            try:
                await pm.add_endpoint("10.0.2.1", ("subflow",), interface="link2")
            except KernelRefused as error:
                self._tell(error.errno, error)
            await pm.remove_endpoint(endpoint)
            self._tell("there", len(pm.endpoints))
            await pm.set_limits(subflows=3)
            self._tell(pm.limits)
            await pm.flush_endpoints()
            self._tell("end")
"""


VARIES = (
    (r"\b(token|number|connection_number)=\d+", r"\1=N"),
    (r"\b(local_port|remote_port|port)=\d{5}\b", r"\1=P"),
    (r"owner='\w*'", "owner=O"),
    (r"ours=\w+", "ours=?"),
)
"""What is not the same for two connections, or for whoever looks."""

COMPARED = (
    *("address", "no address", "subflow", "priority", "no subflow", "closed"),
    *("connections", "interfaces", "endpoints", "listeners", "host", "no interface", "-"),
)
"""In a connection's first moment not all is known of it in the daemon; a program hears later."""


def _lines(it: Stage, word: str) -> list[str]:
    return re.findall(rf"{word} (.*)", it.daemon.log.read_text())


def _seen(it: Stage, name: str) -> dict[str, list[str]]:
    """Give what a plugin has seen, by what happened, without what varies."""
    text = "\n".join(_lines(it, f"SEEN {name}"))
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text)
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        what, _, pictures = line.partition(": ")
        found.setdefault(what, []).append(pictures)
    return found


def _words(pictures: list[str]) -> list[list[str]]:
    """Cut pictures up, so that what differs is easily seen."""
    return [re.split(r", (?=\w+=)|(?<=\)), ", text) for text in pictures]


async def _life(it: Stage, name: str, listener: int) -> None:
    """Have a connection go through all that its policy hears of."""

    async def saw(what: str) -> None:
        await eventually(lambda: what in _seen(it, name))

    pair, path = await it.connection(listener)
    await it.create_subflow(path, LocalAddress="10.0.2.1")
    endpoint = ("mptcp", "endpoint")
    it.lab.ip("server", *endpoint, "add", "10.0.3.2", "id", "7", "signal")
    await saw("address")
    it.lab.ip("server", *endpoint, "delete", "id", "7")
    await saw("no address")
    it.lab.ip("server", *endpoint, "add", SERVER[4], "id", "9")
    it.lab.ip("server", *endpoint, "change", "id", "9", "backup")
    await saw("priority")
    await it.command(f"{path}/subflow/2", SUBFLOW, "Destroy", "a{sv}", {})
    await saw("no subflow")
    for app, number in ((it.client, pair.client), (it.server, pair.server)):
        await app.call("close", number=number)
    await saw("closed")
    it.lab.ip("server", *endpoint, "delete", "id", "9")


async def test_a_program_sees_what_a_plugin_sees(stage: MakeStage) -> None:
    """The same things happen to one connection of each; then both write down all there is."""
    files, others = PluginFiles(), PluginFiles()
    files.write("inside", SEES.replace("NAME", "inside").replace("PRIORITY", "-1"))
    beside = others.write("beside", SEES.replace("NAME", "beside").replace("PRIORITY", "1"))
    it = await stage("--plugin-dir", str(files.path))
    await PluginProgram(it.lab, it.host, it.daemon.log, beside).start(it.viewer)
    lab = it.lab
    lab.ip("client", "mptcp", "endpoint", "add", "10.0.3.1", "dev", "link3", "backup", "subflow")
    lab.ip("client", "route", "add", "default", "dev", "link1", "metric", "7")
    lab.ip("client", "link", "add", "extra", "index", "99", "type", "veth", "peer", "extra9")
    lab.ip("client", "link", "set", "extra", "up")
    lab.ip("client", "address", "add", "10.9.9.9/24", "dev", "extra")
    listener = await it.listener()
    await _life(it, "inside", listener)
    await it.disable("inside")
    await _life(it, "beside", listener)
    await it.enable("inside")
    await it.connection(listener)
    lab.ip("client", "link", "delete", "extra")
    await it.agreed()
    await it.client.call("listen", address="10.0.1.1", port=4999)
    await eventually(lambda: all("host" in _seen(it, name) for name in ("inside", "beside")))

    mine, theirs = _seen(it, "inside"), _seen(it, "beside")
    for what in COMPARED:
        assert _words(theirs[what]) == _words(mine[what]), what


async def test_a_program_can_do_what_a_plugin_can(stage: MakeStage) -> None:
    """Each command, its result and its errors; the order of commands is that of the plugin."""
    files, others = PluginFiles(), PluginFiles()
    does = DOES.replace("NAME", "inside").replace("PRIORITY", "-1").replace("PORT", "40001")
    files.write("inside", does)
    does = DOES.replace("NAME", "beside").replace("PRIORITY", "1").replace("PORT", "40002")
    beside = others.write("beside", does)
    it = await stage("--plugin-dir", str(files.path))
    it.lab.ip("server", "mptcp", "limits", "set", "subflows", "8")
    await PluginProgram(it.lab, it.host, it.daemon.log, beside).start(it.viewer)
    listener = await it.listener()

    pair, _ = await it.connection(listener)
    await eventually(lambda: "end" in _lines(it, "DONE inside"), within=30)
    await it.client.call("close", number=pair.client)
    await it.server.call("close", number=pair.server)
    await it.agreed()
    await it.disable("inside")
    await it.connection(listener)
    await eventually(lambda: _lines(it, "DONE beside")[-1:] == ["end"], within=30)

    assert _lines(it, "DONE beside") == _lines(it, "DONE inside")
    assert len(_lines(it, "DONE beside")) == 18


# How it ends


ENDS = """
    from mptcpd_dbus.plugin import Plugin

    class Ends(Plugin):
        '''Fails at each listener'''

        async def listener_created(self, listener):
            raise ValueError(listener.port)

        async def stop(self):
            self.log.info("good-bye")
"""


async def _ends(it: Stage) -> PluginProgram:
    program = PluginProgram(
        it.lab, it.host, it.daemon.log, PluginFiles().write("ends", ENDS), "--no-ask-password"
    )
    await program.start(it.viewer)
    return program


async def _status(program: PluginProgram, within: float = 5) -> int:
    return int(await asyncio.to_thread(program.process.wait, within))


@pytest.mark.parametrize(
    ("end", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, INTERRUPTED)], ids=str
)
async def test_who_ends_it_has_its_connections_pass_on_and_it_stops_in_good_order(
    stage: MakeStage, end: signal.Signals, status: int
) -> None:
    it = await stage()
    program = await _ends(it)
    _, path = await it.connection(await it.listener())
    assert await it.viewer.get(path, CONNECTION, "Owner") == "ends"

    program.process.send_signal(end)

    assert await _status(program) == status
    assert await it.viewer.get(path, CONNECTION, "Owner") == ""
    log = it.daemon.log.read_text()
    assert "plugin ends: good-bye" in log
    assert "policy ends on the bus decides no more: it has unregistered" in log


async def test_who_disables_it_ends_it_and_it_says_so(stage: MakeStage) -> None:
    it = await stage()
    program = await _ends(it)

    await it.disable("ends")

    assert await _status(program) == FAILED
    assert "mptcpctl: the daemon let it go: it was disabled" in it.daemon.log.read_text()


async def test_five_failures_in_a_row_end_it(stage: MakeStage) -> None:
    it = await stage()
    program = await _ends(it)

    for port in range(5001, 5005):
        await it.client.call("listen", address="10.0.1.1", port=port)
    await eventually(lambda: it.daemon.log.read_text().count("ValueError: 500") >= 4)
    assert program.process.poll() is None  # the control: four do not
    await it.client.call("listen", address="10.0.1.1", port=5005)

    assert await _status(program) == FAILED
    words = "mptcpctl: 5 handlers failed in a row, the last: ValueError: 5005"
    assert words in it.daemon.log.read_text()


async def test_it_goes_on_with_the_next_daemon(stage: MakeStage) -> None:
    it = await stage()
    program = await _ends(it)
    _, path = await it.connection(await it.listener())

    it.daemon.kill()
    await it.daemon.start()

    async def decides() -> bool:
        return bool(await it.viewer.get(path, CONNECTION, "Owner") == "ends")

    await eventually(decides)
    assert program.process.poll() is None


async def test_what_cannot_run_is_refused_in_one_line(stage: MakeStage) -> None:
    it = await stage()
    await _ends(it)
    files = PluginFiles()
    ctl = Ctl(it.lab)
    wrong = files.write("wrong", "nothing = 1")
    settings = files.path / "wrong.conf"
    settings.write_text("[plugin sspi]\nwings=2\n")
    sspi = readable_repository() / "plugins/sspi.py"

    assert ctl.refused("run-plugin", str(wrong)) == (
        FAILED,
        f"{wrong}: one class derived from Plugin is wanted, found none",
    )
    assert ctl.refused("run-plugin", "/no/such.py") == (
        FAILED,
        "/no/such.py: No such file or directory",
    )
    assert ctl.refused("run-plugin", str(sspi), "--config", str(settings)) == (
        FAILED,
        f"{settings}:2: wings: unknown key; known: interfaces",
    )
    taken = files.write("ends", ENDS)
    ran = ctl.run("run-plugin", str(taken))
    said = "mptcpctl: there is a policy ends already: choose another name"
    assert (ran.status, ran.err.splitlines()[-1]) == (FAILED, said)


@pytest.mark.usefixtures("people")
async def test_who_may_not_register_is_told_so(stage: MakeStage) -> None:
    it = await stage()
    file = PluginFiles().write("ends", ENDS)

    alice = Ctl(it.lab, user="alice")
    unasked = alice.run("run-plugin", "--no-ask-password", str(file))
    asked = alice.run("run-plugin", str(file))  # and nobody is there to answer

    assert (unasked.status, asked.status) == (NOT_AUTHORISED, NOT_AUTHORISED)
    action = "org.mptcpd1.register-policy"
    assert f"{action} needs authentication by a dialogue" in unasked.err.splitlines()[-1]
    assert f"not authorised for {action}" in asked.err.splitlines()[-1]
