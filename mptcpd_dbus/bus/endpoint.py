"""The interface org.mptcpd1.Endpoint."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Callable
from typing import Any

from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, args
from mptcpd_dbus.bus.names import ENDPOINT, MANAGE_ENDPOINTS
from mptcpd_dbus.bus.options import ForceOptions, read_flags, read_options
from mptcpd_dbus.core.endpoints import Endpoint, flag_words
from mptcpd_dbus.path_manager import PathManager


def endpoint_interface(pm: PathManager, interface_name: Callable[[int], str]) -> Interface:
    """Declare the interface; its commands go to *pm*, *interface_name* knows ifindexes."""

    async def remove(endpoint: Endpoint, _: Call, given: dict[str, Any]) -> None:
        force = read_options(ForceOptions, given).Force
        await pm.remove_endpoint(endpoint, force=force)

    async def set_flags(
        endpoint: Endpoint, _: Call, words: list[str], given: dict[str, Any]
    ) -> None:
        force = read_options(ForceOptions, given).Force
        await pm.set_endpoint_flags(endpoint, read_flags(words), force=force)

    return Interface(
        ENDPOINT,
        "An address that the in-kernel path manager works with (ip-mptcp(8)). The kernel tells"
        " nobody when a program changes its endpoints: what this daemon did shows at once, what"
        " others did within a minute.",
        properties=(
            Property("Id", "y", lambda e: e.id, "The endpoint's ID.", "const"),
            Property("Address", "s", lambda e: e.entry.address, "The address."),
            Property("Port", "q", lambda e: e.entry.port, "The port to announce, or 0."),
            Property(
                "Flags",
                "as",
                lambda e: flag_words(e.entry.flags),
                "What the kernel does with it, in ip-mptcp(8)'s words: 'signal', 'subflow',"
                " 'backup', 'fullmesh', 'implicit', 'laminar'; a flag without a word as '0x40'.",
            ),
            Property(
                "Interface",
                "s",
                lambda e: interface_name(e.entry.interface_index),
                "The device that its subflows are bound to, or ''.",
            ),
            Property(
                "Origin",
                "s",
                lambda e: e.origin,
                "Who added it: 'mptcpd' (this daemon), 'networkmanager' (every other without port"
                " on an interface that NetworkManager manages: it takes those for its own), or"
                " 'other' (also the kernel itself, which flags those 'implicit'). More words may"
                " come.",
            ),
        ),
        methods=(
            Method(
                "Remove",
                args("a{sv} options"),
                (),
                remove,
                "Delete the endpoint; the kernel withdraws its address and closes its subflows."
                " Fails with NotOurs if it is NetworkManager's. Options: Force b (even then).",
                MANAGE_ENDPOINTS,
            ),
            Method(
                "SetFlags",
                args("as flags", "a{sv} options"),
                (),
                set_flags,
                "Give the endpoint exactly these flags. The kernel can change 'backup' and"
                " 'fullmesh' only. Fails with NotOurs if it is NetworkManager's. Options: Force b"
                " (even then).",
                MANAGE_ENDPOINTS,
            ),
        ),
    )
