"""What handlers are given."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.plugin import Connection, Plugin
from mptcpd_dbus.testing import announced, close, connect, link, play


def test_a_closed_connection_is_shown_with_all_that_it_had() -> None:
    seen: list[Connection] = []

    class Last(Plugin):
        """Keeps what it was given last."""

        async def connection_established(self, connection: Connection) -> None:
            await self.pm.create_subflow(connection, interface="wwan0")

        async def connection_closed(self, connection: Connection) -> None:
            seen.append(connection)
            assert self.pm.now(connection) is None

    play(
        Last,
        link("eth0", "10.0.1.1"),
        link("wwan0", "10.0.2.1"),
        connect(),
        announced(3, "10.0.9.3"),
        close(),
    )

    (last,) = seen
    assert [s.local_address for s in last.subflows] == ["10.0.1.1", "10.0.2.1"]
    assert [a.address for a in last.local_addresses] == ["10.0.2.1"]
    assert [(a.id, a.address) for a in last.remote_addresses] == [(3, "10.0.9.3")]
