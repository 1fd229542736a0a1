"""What is made of NetworkManager's answers, with a stand-in that may answer anything, or nothing.

What the real one says is tested with the real one, in tests/e2e.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from dbus_next import Message, MessageType, NameFlag, Variant
from dbus_next.aio import MessageBus

from mptcpd_dbus.bus import network_manager
from mptcpd_dbus.bus.network_manager import NetworkManager
from mptcpd_dbus.bus.transport import Transport
from mptcpd_dbus.core.network import Management
from tests.bus.conftest import until

NAME, MANAGER = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
Said = Mapping[str, Management]
Values = dict[str, Variant]
HONEST: Values = {
    "IpInterface": Variant("s", "link1"),
    "Managed": Variant("b", True),
    "Metered": Variant("u", 1),
    "Ip4Connectivity": Variant("u", 2),
    "Ip6Connectivity": Variant("u", 4),
    "DeviceType": Variant("u", 8),
    "ActiveConnection": Variant("o", "/active"),
}
PROFILE: Values = {"Id": Variant("s", "mobile")}
BELIEVED = Management(
    managed=True,
    metered="yes",
    connectivity="full",
    primary=True,
    device_type="modem",
    connection_id="mobile",
)


DEVICES: Values = {
    "Devices": Variant("ao", ["/device"]),
    "PrimaryConnection": Variant("o", "/active"),
}


class StandIn:
    """Answers GetAll with what `objects` has, by path; None keeps silent."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.objects: dict[str, Values | str | None] = {}
        self.asked: list[str] = []
        bus.add_message_handler(self._handle)

    async def come(self) -> None:
        """Have the name."""
        await self._bus.request_name(NAME, NameFlag.DO_NOT_QUEUE)

    async def becomes(
        self,
        device: Values | str | None,
        *,
        devices: Values | str | None = DEVICES,
        profile: Values | str | None = PROFILE,
    ) -> None:
        """Have these objects from now on, and say so."""
        self.objects = {MANAGER: devices, "/device": device, "/active": profile}
        changed = Message.new_signal(
            MANAGER, PROPERTIES, "PropertiesChanged", "sa{sv}as", [NAME, {}, []]
        )
        await self._bus.send(changed)

    def _handle(self, sent: Message) -> Message | bool | None:
        if sent.message_type is not MessageType.METHOD_CALL or sent.member != "GetAll":
            return None
        self.asked.append(sent.path)
        answer = self.objects.get(sent.path, {})
        if answer is None:
            return True
        return Message.new_method_return(
            sent, "s" if isinstance(answer, str) else "a{sv}", [answer]
        )


@pytest.fixture
async def other(client: MessageBus) -> StandIn:
    other = StandIn(client)
    await other.come()
    return other


@pytest.fixture
async def said(transport: Transport) -> AsyncIterator[list[Said]]:
    """Give all that was taken for true."""
    found: list[Said] = []
    it = NetworkManager(transport, lambda reading: found.append(reading.interfaces))
    yield found
    it.stop()


async def _says(said: list[Said], expected: Said) -> None:
    await until(lambda: bool(said) and said[-1] == expected)


def _device(signature: str, value: object) -> Values:
    wrong = ("Managed", "Metered", "Ip4Connectivity", "Ip6Connectivity", "DeviceType")
    return HONEST | dict.fromkeys(wrong, Variant(signature, value))


NUMBERED = Management(primary=True, connection_id="mobile")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (_device("s", "yes"), {"link1": NUMBERED}),
        (_device("ai", [1]), {"link1": NUMBERED}),
        (_device("d", 1.0), {"link1": NUMBERED}),
        (_device("u", 2**32 - 1), {"link1": NUMBERED._replace(device_type="4294967295")}),
        (_device("x", -1), {"link1": NUMBERED._replace(device_type="-1")}),
        (HONEST | {"IpInterface": Variant("u", 1)}, {"": BELIEVED}),
        ({}, {"": Management()}),
        ("no properties at all", {"": Management()}),
    ],
)
async def test_what_has_the_wrong_type_or_no_meaning_is_as_if_it_were_not_said(
    other: StandIn, said: list[Said], device: Values | str, expected: Said
) -> None:
    await other.becomes(device)
    await _says(said, expected)

    await other.becomes(HONEST)
    await _says(said, {"link1": BELIEVED})


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("no properties at all", {}),
        ({}, {}),
        ({"Devices": Variant("s", "/device")}, {}),
        ({"Devices": Variant("aas", [["/device"]])}, {"": Management()}),
        ({"Devices": Variant("as", ["", "device", "/device/", "/" * 1000])}, {"": Management()}),
    ],
)
async def test_devices_that_are_none_have_no_interface(
    other: StandIn, said: list[Said], devices: Values | str, expected: Said
) -> None:
    await other.becomes(HONEST)
    await _says(said, {"link1": BELIEVED})

    await other.becomes(HONEST, devices=devices)
    await _says(said, expected)


async def test_texts_are_cut_and_devices_are_counted(
    other: StandIn, said: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_manager, "DEVICES", 3)
    many = DEVICES | {"Devices": Variant("ao", ["/device"] * 10_000)}
    long = Variant("s", "é" * 1_000_000)

    await other.becomes(HONEST | {"IpInterface": long}, devices=many, profile={"Id": long})
    short = "é" * 256
    await _says(said, {short: BELIEVED._replace(connection_id=short)})

    assert other.asked.count("/device") == 3


async def test_while_it_does_not_answer_what_it_said_stands_and_the_log_has_it_once(
    other: StandIn,
    said: list[Said],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(network_manager, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(network_manager, "AGAIN_SECONDS", 0.05)
    await other.becomes(HONEST)
    await _says(said, {"link1": BELIEVED})
    other.asked.clear()

    await other.becomes(None)
    await until(lambda: other.asked.count("/device") >= 3)
    assert said[-1] == {"link1": BELIEVED}
    assert caplog.text.count("does not answer") == 1

    other.objects["/device"] = HONEST | {"Metered": Variant("u", 2)}
    await _says(said, {"link1": BELIEVED._replace(metered="no")})


@pytest.mark.usefixtures("other")
async def test_a_bus_that_takes_its_time_is_asked_again(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, slow = transport.call, [True, True]

    async def sometimes(*arguments: Any, **options: Any) -> list[Any]:
        if "AddMatch" in arguments and slow:
            slow.pop()
            raise TimeoutError
        return await call(*arguments, **options)

    monkeypatch.setattr(transport, "call", sometimes)
    said: list[Said] = []
    it = NetworkManager(transport, lambda reading: said.append(reading.interfaces))

    await _says(said, {})
    it.stop()
    assert not slow
