"""Connections change hands while they live: nothing is lost, and they come in their order.

Each plugin writes down what it hears of which connection; the log is what is compared.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import re
from typing import Any

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, Stage
from tests.lab.plugin_files import PluginFiles
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"
PATH = "/org/mptcpd1/plugin/"
HANDED = 100

TELLS = """
    import asyncio, logging
    from mptcpd_dbus.plugin import Plugin

    class Tells(Plugin):
        '''Writes down what it hears'''

        priority = PRIORITY

        def _tell(self, what, connection):
            log = logging.getLogger("mptcpd_dbus.plugin")
            log.info("NAME heard %s of %d", what, connection.number)

        async def new_connection(self, connection):
            self._tell("new", connection)

        async def connection_established(self, connection):
            self._tell("established", connection)

        async def connection_closed(self, connection):
            self._tell("closed", connection)

        async def connection_released(self, connection):
            self._tell("released", connection)

        async def new_subflow(self, connection, subflow):
            self._tell("subflow", connection)

        async def subflow_closed(self, connection, subflow):
            self._tell("no subflow", connection)

        async def stop(self):
            await asyncio.sleep(PAUSE)

        async def new_local_address(self, interface, address):
            if "NAME" == "first" and address.startswith("10.0.3.1"):
                raise ValueError(address)
"""


class Play:
    """A stage with plugins that tell, and what they have told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.viewer = stage.viewer
        self._told = 0

    def news(self, name: str) -> list[tuple[str, int]]:
        """Give what a plugin has heard since `forget`: what happened, and to which number."""
        text = self.stage.daemon.log.read_text()[self._told :]
        found = re.findall(rf"{name} heard ([\w ]+) of (\d+)$", text, re.MULTILINE)
        return [(what, int(number)) for what, number in found]

    def forget(self) -> None:
        """Begin anew."""
        self._told = len(self.stage.daemon.log.read_text())

    async def plugin(self, name: str) -> dict[str, Any]:
        """Give the properties of a plugin."""
        objects = await self.viewer.managed_objects()
        return dict(objects[PATH + name][PLUGIN])

    async def command(self, name: str, member: str) -> None:
        """Call Enable, Disable or Reload."""
        await self.stage.command(PATH + name, PLUGIN, member, "a{sv}", {})

    async def owners(self) -> dict[int, str]:
        """Give the owner of each connection by its number."""
        objects = await self.viewer.managed_objects()
        return {
            int(path.rpartition("/")[2]): o[CONNECTION]["Owner"]
            for path, o in objects.items()
            if CONNECTION in o
        }


def _tells(files: PluginFiles, name: str, priority: int, pause: float = 0) -> None:
    source = TELLS.replace("NAME", name).replace("PRIORITY", str(priority))
    files.write(name, source.replace("PAUSE", str(pause)))


async def test_a_hundred_connections_pass_on_in_order_and_nothing_is_lost_meanwhile(
    stage: MakeStage,
) -> None:
    """The owner takes a second to stop; meanwhile connections and subflows come and go."""
    files = PluginFiles()
    _tells(files, "first", -1, pause=1)
    _tells(files, "second", 1)
    play = Play(await stage("--plugin-dir", str(files.path)))
    it = play.stage
    listener = await it.listener()
    talks, accepted = await it.many(listener, HANDED)
    await it.agreed()
    assert await play.owners() == dict.fromkeys(range(1, HANDED + 1), "first")
    _, path = await it.connection(listener)
    subflow = await it.create_subflow(path, LocalAddress="10.0.2.1")
    await eventually(lambda: ("subflow", HANDED + 1) in play.news("first"))
    play.forget()

    disabling = asyncio.ensure_future(play.command("first", "Disable"))
    await eventually(lambda: len(play.news("second")) == 2 * (HANDED + 1))
    for app, open_ones in ((it.client, talks), (it.server, accepted)):
        for number in open_ones[:10]:
            await app.call("close", number=number)
    await it.command(subflow, "org.mptcpd1.Subflow", "Destroy", "a{sv}", {})
    await it.create_subflow(path, LocalAddress="10.0.3.1")
    await it.many(await it.listener(port=4243), 5, 4243)
    assert not disabling.done(), "the owner must still be stopping"
    await disabling
    await it.agreed()

    numbers = range(1, HANDED + 2)
    news = play.news("second")
    by_handler = {what: [n for w, n in news if w == what] for what, _ in news}
    assert by_handler == {
        "new": [*numbers, *range(HANDED + 2, HANDED + 7)],
        "established": [*numbers, *range(HANDED + 2, HANDED + 7)],
        "closed": list(range(1, 11)),
        "no subflow": [HANDED + 1],
        "subflow": [HANDED + 1],
    }
    for number in numbers:
        of_it = [what for what, n in news if n == number]
        assert of_it[:2] == ["new", "established"]
    assert play.news("first") == []
    assert set((await play.owners()).values()) == {"second"}
    counted = [(await play.plugin(name))["Connections"] for name in ("first", "second")]
    assert counted == [0, HANDED - 10 + 1 + 5]

    await play.command("first", "Enable")  # it is higher, and gets new ones only
    await it.connection(await it.listener(port=4244), port=4244)
    owners = await play.owners()
    assert list(owners.values()).count("first") == 1
    assert owners[max(owners)] == "first"


async def test_with_nobody_next_in_line_nobody_decides_until_one_is_enabled(
    stage: MakeStage,
) -> None:
    files = PluginFiles()
    _tells(files, "only", 0)
    play = Play(await stage("--plugin-dir", str(files.path)))
    listener = await play.stage.listener()
    await play.stage.many(listener, 3)
    await play.stage.agreed()

    await play.command("only", "Disable")
    assert set((await play.owners()).values()) == {""}
    await play.stage.connection(listener)
    assert (await play.owners())[4] == ""
    play.forget()
    await play.command("only", "Enable")

    assert set((await play.owners()).values()) == {"only"}
    taken = [(what, number) for number in (1, 2, 3, 4) for what in ("new", "established")]
    await eventually(lambda: len(play.news("only")) == len(taken))
    assert sorted(play.news("only")) == sorted(taken)
    assert [n for what, n in play.news("only") if what == "new"] == [1, 2, 3, 4]


async def test_an_owner_can_be_set_and_taken_away_for_one_connection(stage: MakeStage) -> None:
    files = PluginFiles()
    _tells(files, "first", -1)
    _tells(files, "second", 1)
    play = Play(await stage("--plugin-dir", str(files.path)))
    listener = await play.stage.listener()
    _, path = await play.stage.connection(listener)
    await play.stage.connection(listener)

    for name, owners in (("second", ["second", "first"]), ("", ["", "first"])):
        await play.stage.command(path, CONNECTION, "SetOwner", "sa{sv}", name, {})
        assert list((await play.owners()).values()) == owners
    assert await play.stage.create_subflow(path, LocalAddress="10.0.2.1")  # which reads its IDs
    await play.stage.agreed()
    assert list((await play.owners()).values()) == ["", "first"]
    heard = [what for what, number in play.news("first") if number == 1]
    assert heard == ["new", "established", "released"]
    assert play.news("second") == [("new", 1), ("established", 1), ("released", 1)]


async def test_a_reload_keeps_its_connections_and_introduces_them_again(stage: MakeStage) -> None:
    files = PluginFiles()
    _tells(files, "first", -1)
    _tells(files, "second", 1)
    play = Play(await stage("--plugin-dir", str(files.path)))
    await play.stage.many(await play.stage.listener(), 3)
    await play.stage.agreed()
    play.forget()

    _tells(files, "first", -1)
    text = (files.path / "first.py").read_text()
    (files.path / "first.py").write_text(text.replace("first heard", "anew heard"))
    await play.command("first", "Reload")
    await eventually(lambda: len(play.news("anew")) == 6)

    assert [n for what, n in play.news("anew") if what == "new"] == [1, 2, 3]
    assert set((await play.owners()).values()) == {"first"}
    assert play.news("first") == play.news("second") == []


async def test_five_failures_in_a_row_pass_all_on_and_four_with_a_success_do_not(
    stage: MakeStage,
) -> None:
    """The first one fails at each address that begins with 10.0.3.1."""
    files = PluginFiles()
    _tells(files, "first", -1)
    _tells(files, "second", 1)
    play = Play(await stage("--plugin-dir", str(files.path)))
    it = play.stage
    await it.many(await it.listener(), 3)
    await it.agreed()

    async def errors(count: int) -> None:
        async def so_many() -> bool:
            return bool((await play.plugin("first"))["Errors"] == count)

        await eventually(so_many)

    def add(*last: int) -> None:
        it.lab.batch("client", [f"address add 10.0.3.{n}/24 dev link3" for n in last])

    add(10, 11, 12, 13, 20, 14, 15, 16, 17)  # four, a success, four
    await errors(8)
    assert (await play.plugin("first"))["State"] == "running"
    assert set((await play.owners()).values()) == {"first"}
    assert play.news("second") == []

    add(18)

    async def failed() -> bool:
        return bool((await play.plugin("first"))["State"] == "failed")

    await eventually(failed)
    assert (await play.plugin("first"))["Problem"] == (
        "5 handlers failed in a row, the last: new_local_address: ValueError: 10.0.3.18"
    )
    assert set((await play.owners()).values()) == {"second"}
    assert [n for what, n in play.news("second") if what == "new"] == [1, 2, 3]
    assert (await play.plugin("second"))["Errors"] == 0
