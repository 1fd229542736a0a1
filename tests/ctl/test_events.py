"""An event is a line with what people look at, and all of it for programs."""
# SPDX-License-Identifier: BSD-3-Clause

from datetime import UTC, datetime
from typing import Any

import pytest

from mptcpd_dbus.ctl.events import event_view
from mptcpd_dbus.ctl.view import Line

WHEN = datetime(2026, 11, 22, 21, 5, 9, 42_500, UTC)
PATH = "/org/mptcpd1/connection/1"
FLOW = ("10.0.1.1", 4000, "10.0.9.1", 80)
TOLD = "00001a2b 10.0.1.1:4000 - 10.0.9.1:80"
JOINED = (PATH, f"{PATH}/subflow/2", 0x1A2B, *FLOW, 0, 1, False, 12, "link2")


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("ConnectionClosed", (PATH, 0x1A2B), "00001a2b"),
        (
            "NewConnection",
            (PATH, 0x1A2B, *FLOW, True, False),
            f"{TOLD} server_side",
        ),
        (
            "NewSubflow",
            JOINED,
            f"{TOLD} local_id=0 remote_id=1 interface=link2",
        ),
        (
            "SubflowClosed",
            (*JOINED, 110, -1),
            f"{TOLD} local_id=0 remote_id=1 interface=link2 error=Connection timed out",
        ),
        ("NewAddress", (PATH, "/", 0x1A2B, 3, "dead::1", 80), "00001a2b [dead::1]:80 remote_id=3"),
        ("UpdateInterface", ("/", 3, "eth0", "veth", True, False), "name=eth0 kind=veth up"),
        ("EventsLost", ("mptcp_pm",), "source=mptcp_pm"),
        ("DaemonStopped", (), ""),
        ("FromALaterDaemon", (PATH, 7), ""),
    ],
)
def test_an_event_is_a_line(name: str, body: tuple[Any, ...], words: str) -> None:
    view = event_view(WHEN, name, body)

    (line,) = view.blocks
    assert isinstance(line, Line)
    assert line.text.split(maxsplit=2) == ["21:05:09.042", name, *filter(None, [words])]
    assert view.data["event"] == name
    assert view.data["time"] == "2026-11-22T21:05:09.042500+00:00"


def test_programs_get_all_of_it() -> None:
    data = event_view(WHEN, "SubflowClosed", (*JOINED, 0, -1)).data

    assert data["subflow"] == f"{PATH}/subflow/2"
    assert (data["token"], data["error"], data["reset_reason"]) == ("00001a2b", 0, -1)
