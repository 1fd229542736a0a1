"""The contract as a whole: which interface shows which kind of thing."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Awaitable, Callable

from mptcpd_dbus.bus.address import ADDRESS
from mptcpd_dbus.bus.connection import connection_interface
from mptcpd_dbus.bus.endpoint import endpoint_interface
from mptcpd_dbus.bus.interface import Interface
from mptcpd_dbus.bus.manager import Own, manager_interface
from mptcpd_dbus.bus.network_interface import NETWORK_INTERFACE
from mptcpd_dbus.bus.plugin import plugin_interface
from mptcpd_dbus.bus.programs import Programs
from mptcpd_dbus.bus.subflow import subflow_interface
from mptcpd_dbus.core import connections, endpoints, network
from mptcpd_dbus.core.policies import Policy
from mptcpd_dbus.core.state import State
from mptcpd_dbus.path_manager import PathManager
from mptcpd_dbus.policy_protocol import Policies


def contract(
    state: State,
    pm: PathManager,
    policies: Policies,
    programs: Programs,
    *,
    features: tuple[str, ...],
    counters: Callable[[], dict[str, int]],
    own: Own,
    announce: Callable[[], Awaitable[None]],
) -> dict[type, Interface]:
    """Give the interface of each kind of thing; commands go to the others.

    *own* is of `manager.py`; *announce* makes an object of each connection that is none yet.
    """

    def interface_name(index: int) -> str:
        interface = state.network.interfaces.get(index)
        return interface.name if interface else ""

    return {
        State: manager_interface(
            state,
            pm,
            policies,
            programs,
            features=features,
            counters=counters,
            own=own,
            announce=announce,
        ),
        connections.Connection: connection_interface(pm, policies),
        connections.Subflow: subflow_interface(pm),
        connections.Address: ADDRESS,
        endpoints.Endpoint: endpoint_interface(pm, interface_name),
        network.Interface: NETWORK_INTERFACE,
        Policy: plugin_interface(policies),
    }
