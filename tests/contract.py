"""The D-Bus contract as files in `dbus/`, one per interface, and as the man page org.mptcpd1(5).

    .venv/bin/python -m tests.contract      (or `make contract`)

It writes them anew; `tests/bus/test_contract.py` fails when they are not what the code declares.
"""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path
from typing import NoReturn, cast

from mptcpd_dbus.bus.contract import contract
from mptcpd_dbus.bus.interface import Interface
from mptcpd_dbus.bus.introspection import interface_xml
from mptcpd_dbus.bus.policy import POLICY
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.core.state import State
from mptcpd_dbus.path_manager import PathManager
from mptcpd_dbus.testing import FakeKernel
from tests import contract_page, manual
from tests.bus.fake_policies import FakePolicies

REPOSITORY = Path(__file__).resolve().parents[1]
DIRECTORY = REPOSITORY / "dbus"


def interfaces() -> list[Interface]:
    """Give the interfaces that the daemon serves; nothing is behind them."""
    state = State()
    pm = PathManager(state, FakeKernel(), lambda _: None, lambda _: None)
    nobody = cast("Programs", None)
    served = contract(
        state,
        pm,
        FakePolicies(),
        nobody,
        features=(),
        counters=dict,
        own=no_socket,
        announce=no_socket,
    )
    return list(served.values())


def no_socket(*_: object) -> NoReturn:
    """Be where nobody shows a socket."""
    raise NotImplementedError


def documented() -> list[Interface]:
    """Give all interfaces, also the one that clients serve."""
    return [*interfaces(), POLICY]


def golden_files() -> dict[Path, str]:
    """Give each file and what it must hold."""
    xml = {DIRECTORY / f"{its.name}.xml": interface_xml(its) for its in documented()}
    return {**xml, manual.CONTRACT: contract_page.page(documented())}


if __name__ == "__main__":
    for path, text in golden_files().items():
        path.write_text(text)
