"""What top knows of is what the daemon has, whatever comes between a question and its answer."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mptcpd_dbus.bus.error_names import DISCONNECTED, FAILED, BusError
from mptcpd_dbus.bus.names import CONNECTION, MANAGER, SUBFLOW
from mptcpd_dbus.bus.transport import DBUS
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.follow import Following

FIRST, SECOND = "/org/mptcpd1/connection/1", "/org/mptcpd1/connection/10"
ITS = f"{FIRST}/subflow/1"
OBJECTS: dict[str, Any] = {
    "/org/mptcpd1": {MANAGER: {}},
    ITS: {SUBFLOW: {"Backup": False}},
    FIRST: {CONNECTION: {"Token": 1}},
}


class FakeDaemon:
    """Answers with OBJECTS, and may say something before and fail."""

    def __init__(self) -> None:
        self.transport = self
        self.hear: Callable[[Any], None] = lambda _: None
        self.meanwhile: Callable[[], None] = lambda: None
        self.fails: BusError | None = None
        self.asked = 0

    def on_signal(self, interface: str, member: str, hear: Callable[[Any], None]) -> None:
        """Remember who listens."""
        del interface, member
        self.hear = hear

    async def call(self, *words: Any) -> list[str]:
        """Answer GetNameOwner."""
        del words
        return [":1.1"]

    async def properties(self, *words: Any) -> dict[str, Any]:
        """Be there."""
        del words
        return {}

    async def objects(self) -> dict[str, Any]:
        """Give all."""
        self.asked += 1
        self.meanwhile()
        if self.fails:
            raise self.fails
        return {path: {**its} for path, its in OBJECTS.items()}

    def signal(self, member: str, *values: Any, path: str = "", sender: str = ":1.1") -> None:
        """Say something."""
        self.hear(SimpleNamespace(member=member, path=path, sender=sender, values=lambda: values))


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
async def following(daemon: FakeDaemon) -> Following:
    made = Following(cast("Daemon", daemon))
    await made.start()
    return made


def _known(following: Following) -> dict[str, list[str]]:
    return {path: [*its.subflows] for path, its in following.connections.items()}


async def test_all_is_read_once_and_then_followed(daemon: FakeDaemon, following: Following) -> None:
    assert not following.running
    await following.catch_up()
    await following.catch_up()
    assert (daemon.asked, following.running) == (1, True)
    assert _known(following) == {FIRST: [ITS]}

    daemon.signal("InterfacesAdded", SECOND, {CONNECTION: {"Token": 2}})
    daemon.signal("InterfacesAdded", f"{SECOND}/subflow/1", {SUBFLOW: {}})
    daemon.signal("PropertiesChanged", SUBFLOW, {"Backup": True}, [], path=ITS)
    daemon.signal("InterfacesAdded", "/org/mptcpd1/endpoint/1", {})
    assert _known(following) == {FIRST: [ITS], SECOND: [f"{SECOND}/subflow/1"]}
    assert [it.properties for it in following.subflows()] == [{"Backup": True}, {}]

    daemon.signal("InterfacesRemoved", ITS, [SUBFLOW])
    daemon.signal("InterfacesRemoved", SECOND, [CONNECTION])
    daemon.signal("InterfacesRemoved", f"{SECOND}/subflow/1", [SUBFLOW])
    assert _known(following) == {FIRST: []}


async def test_a_stranger_tells_nothing(daemon: FakeDaemon, following: Following) -> None:
    await following.catch_up()

    daemon.signal("InterfacesRemoved", FIRST, [], sender=":1.2")

    assert _known(following) == {FIRST: [ITS]}


async def test_what_is_heard_while_all_is_read_is_not_lost(
    daemon: FakeDaemon, following: Following
) -> None:
    """Before the answer, which has it then, or right behind it: both look the same."""

    def meanwhile() -> None:
        daemon.signal("InterfacesAdded", FIRST, {CONNECTION: {"Token": 1}})
        daemon.signal("InterfacesAdded", SECOND, {CONNECTION: {"Token": 2}})
        daemon.signal("PropertiesChanged", SUBFLOW, {"Backup": True}, [], path=ITS)

    daemon.meanwhile = meanwhile
    await following.catch_up()

    assert _known(following) == {FIRST: [ITS], SECOND: []}
    assert next(following.subflows()).properties == {"Backup": True}


async def test_another_daemon_is_read_anew(daemon: FakeDaemon, following: Following) -> None:
    """Also when it comes while the one before was read; without any nobody is asked."""
    await following.catch_up()
    daemon.signal("NameOwnerChanged", "org.mptcpd1", ":1.1", "", sender=DBUS)
    await following.catch_up()
    assert (daemon.asked, following.running, _known(following)) == (1, False, {})

    daemon.signal("NameOwnerChanged", "org.mptcpd1", "", ":1.3", sender=DBUS)
    daemon.meanwhile = lambda: daemon.signal(
        "NameOwnerChanged", "org.mptcpd1", ":1.3", ":1.4", sender=DBUS
    )
    await following.catch_up()
    assert not following.running
    daemon.meanwhile = lambda: None
    await following.catch_up()
    assert _known(following) == {FIRST: [ITS]}
    daemon.signal("InterfacesRemoved", FIRST, [], sender=":1.3")
    assert _known(following) == {FIRST: [ITS]}
    daemon.signal("InterfacesRemoved", FIRST, [], sender=":1.4")
    assert _known(following) == {}


async def test_when_signals_were_dropped_all_is_read_again(
    daemon: FakeDaemon, following: Following
) -> None:
    await following.catch_up()

    daemon.signal("SignalsDropped", 7)
    assert not following.running
    await following.catch_up()

    assert (daemon.asked, _known(following)) == (2, {FIRST: [ITS]})


async def test_a_daemon_that_cannot_answer_yet_is_asked_again(
    daemon: FakeDaemon, following: Following
) -> None:
    """Only when the bus goes is there nothing more to wait for."""
    daemon.fails = BusError(FAILED, "not ready")
    await following.catch_up()
    assert not following.running
    daemon.fails = BusError(DISCONNECTED, "closed")
    with pytest.raises(BusError, match="closed"):
        await following.catch_up()
    daemon.fails = None
    await following.catch_up()

    assert _known(following) == {FIRST: [ITS]}
