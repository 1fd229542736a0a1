"""Which endpoints are ours, over restarts of the daemon: what is noted, and what is believed."""
# SPDX-License-Identifier: BSD-3-Clause

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mptcpd_dbus.core import commands
from mptcpd_dbus.core.endpoints import Endpoint
from mptcpd_dbus.core.readings import EndpointsRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressEntry, AddressFlag
from mptcpd_dbus.notes import MAX_SIZE
from mptcpd_dbus.own_endpoints import OwnEndpoints
from tests.world import World

FIRST, SECOND = AddressEntry("10.0.1.1", 1), AddressEntry("dead:beef:2::1", 2, 4242, 1)
NAMESPACE = Path("/proc/self/ns/net").stat().st_ino
GOOD = {"id": 1, "address": "10.0.1.1", "port": 0, "by": "addr_adv"}


class Daemon:
    """A run of the daemon, as far as endpoints go, with what the kernel has when it begins."""

    def __init__(self, file: Path | None, *kernel: AddressEntry) -> None:
        self.state = State()
        self.own = OwnEndpoints(self.state, self.state.apply)
        self.sweep(*kernel)
        if file is not None:
            self.own.recall(file)

    def sweep(self, *kernel: AddressEntry) -> None:
        """Read what the kernel has."""
        self.state.apply(EndpointsRead(kernel))
        self.own.forget_gone()

    def add(self, entry: AddressEntry, by: str = "") -> Endpoint:
        """Have an endpoint of ours beside those that there are."""
        self.sweep(*(e.entry for e in self.state.endpoints.values()), entry)
        self.own.add(self.state.endpoints[entry.id], by)
        return self.state.endpoints[entry.id]

    @property
    def ours(self) -> set[int]:
        """The IDs of the endpoints that are ours."""
        return {endpoint.id for endpoint in self.state.endpoints.values() if endpoint.ours}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the place of the note, where none is."""
    return tmp_path / "own-endpoints"


def _note(endpoints: object, namespace: object = NAMESPACE, **more: Any) -> bytes:
    return json.dumps({"namespace": namespace, "endpoints": endpoints, **more}).encode()


# What is ours


def test_what_was_added_is_ours_after_a_restart_and_nothing_else_is(file: Path) -> None:
    Daemon(file).add(SECOND)

    assert Daemon(file, FIRST, SECOND).ours == {2}


def test_who_had_it_added_is_known_after_a_restart(file: Path) -> None:
    Daemon(file).add(FIRST, "addr_adv")

    again = Daemon(file, FIRST)

    assert again.own.added_by(again.state.endpoints[1], "addr_adv")
    assert not again.own.added_by(again.state.endpoints[1], "")


def test_without_a_file_it_is_ours_until_the_daemon_ends() -> None:
    daemon = Daemon(None)
    daemon.add(FIRST)

    assert daemon.ours == {1}
    assert Daemon(None, FIRST).ours == set()


def test_what_the_kernel_has_no_more_is_not_ours_when_somebody_adds_it_again(file: Path) -> None:
    daemon = Daemon(file)
    daemon.add(FIRST)

    daemon.sweep()
    daemon.sweep(FIRST)

    assert daemon.ours == set()
    assert Daemon(file, FIRST).ours == set()


def test_what_went_while_the_daemon_was_down_is_forgotten(file: Path) -> None:
    Daemon(file).add(FIRST)

    Daemon(file)

    assert Daemon(file, FIRST).ours == set()


@pytest.mark.parametrize(
    "other",
    [
        AddressEntry("10.0.1.1", 3),
        AddressEntry("10.0.7.7", 1),
        AddressEntry("10.0.1.1", 1, 4242, AddressFlag.SIGNAL),
        AddressEntry("10.0.1.1", 1, 0, AddressFlag.IMPLICIT),
    ],
)
def test_one_that_only_resembles_ours_is_somebody_elses(file: Path, other: AddressEntry) -> None:
    Daemon(file).add(FIRST)

    assert Daemon(file, other).ours == set()
    assert Daemon(file, FIRST).ours == set(), "and ours is gone"


def test_another_network_namespace_has_endpoints_of_its_own(file: Path) -> None:
    for namespace, ours in ((NAMESPACE + 1, set()), (NAMESPACE, {1})):
        file.write_bytes(_note([GOOD], namespace))

        assert Daemon(file, FIRST).ours == ours


# What is believed


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff\xfe",
        b"[" * 10_000,
        b"[]",
        _note([GOOD])[:-1],
        _note([GOOD], more=1),
        _note([GOOD], "1"),
        _note([GOOD] * 256),
        _note([GOOD | {"more": 1}]),
        _note([{"id": 1}]),
        _note([GOOD | {"id": 0}]),
        _note([GOOD | {"id": 256}]),
        _note([GOOD | {"id": "1"}]),
        _note([GOOD | {"port": -1}]),
        _note([GOOD | {"port": 65536}]),
        _note([GOOD | {"address": "10.0.1.256"}]),
        _note([GOOD | {"address": "0.0.0.0"}]),  # noqa: S104 # nothing is bound
        _note([GOOD | {"by": "x" * 256}]),
        _note([GOOD]).ljust(MAX_SIZE + 1),
    ],
    ids=range(19),
)
def test_a_damaged_note_is_one_line_in_the_log_and_no_endpoint(
    file: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(text)

    assert Daemon(file, FIRST).ours == set()

    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_same_note_undamaged_is_believed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The control of the test above."""
    file.write_bytes(_note([GOOD]).ljust(MAX_SIZE))

    assert Daemon(file, FIRST).ours == {1}
    assert caplog.records == []


def test_a_missing_note_is_no_news(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Daemon(file, FIRST).ours == set()
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_regular_file_is_not_read(
    file: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = file.with_name("target")
    target.write_bytes(_note([GOOD]))
    match kind:
        case "link":
            file.symlink_to(target)
        case "fifo":
            os.mkfifo(file)
        case _:
            file.mkdir()

    assert Daemon(file, FIRST).ours == set()
    assert str(file) in caplog.text


# How it is written


def test_the_note_is_for_the_daemon_alone_and_replaced_as_a_whole(file: Path) -> None:
    daemon = Daemon(file)
    daemon.add(FIRST)
    with file.open() as reader:  # who has it open keeps the whole of the old one
        before = file.read_text()
        daemon.add(SECOND)

        assert reader.read() == before

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_a_crash_left_half_written_is_in_nobodys_way(file: Path) -> None:
    file.with_name(f"{file.name}.new").write_text("half")

    Daemon(file).add(FIRST)

    assert Daemon(file, FIRST).ours == {1}


def test_a_note_that_cannot_be_written_is_one_line_in_the_log_and_no_more(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = file / "in" / "no" / "directory"
    daemon = Daemon(nowhere)

    with caplog.at_level(logging.WARNING):
        daemon.add(FIRST)
        daemon.add(SECOND)

    assert daemon.ours == {1, 2}
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()

    nowhere.parent.mkdir(parents=True)
    daemon.sweep(FIRST)
    assert Daemon(nowhere, FIRST, SECOND).ours == {1}


# What feeds it


async def test_every_endpoint_added_through_the_daemon_is_ours() -> None:
    world = World()
    await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.3.1")))

    ours = await world.pm.add_endpoint(AddressEntry("10.0.1.1"))

    assert {e.entry.address for e in world.state.endpoints.values() if e.ours} == {"10.0.1.1"}
    assert world.pm.own_endpoints.added_by(ours, "")


async def test_one_removed_and_added_by_somebody_else_is_not() -> None:
    for remove in ("remove_endpoint", "flush_endpoints"):
        world = World()
        ours = await world.pm.add_endpoint(AddressEntry("10.0.1.1"))

        await getattr(world.pm, remove)(*([ours] if remove == "remove_endpoint" else []))
        await world.kernel.execute(commands.AddAddr(AddressEntry("10.0.1.1", ours.id)))
        world.engine.take(world.kernel.endpoints())

        assert not world.state.endpoints[ours.id].ours
