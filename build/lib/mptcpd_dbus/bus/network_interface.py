"""The interface org.mptcpd1.Interface: a network interface of the host."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.interface import Interface, Property
from mptcpd_dbus.bus.names import INTERFACE_PREFIX

NETWORK_INTERFACE = Interface(
    INTERFACE_PREFIX + "Interface",
    "A network interface of this host, as rtnetlink(7) tells it.",
    properties=(
        Property("Index", "u", lambda i: i.index, "The interface index.", "const"),
        Property("Name", "s", lambda i: i.name, "The name, which may change."),
        Property(
            "Kind",
            "s",
            lambda i: i.kind,
            "The kind of a virtual device ('veth', 'wireguard', ...), else the type of its link"
            " ('ether', 'loopback', ...).",
        ),
        Property("Up", "b", lambda i: i.up, "Whether the administrator wants it up (IFF_UP)."),
        Property("Running", "b", lambda i: i.running, "Whether it has a carrier (IFF_RUNNING)."),
        Property(
            "Addresses",
            "as",
            lambda i: [f"{a}/{n}" for a, n in i.addresses.items()],
            "Its usable addresses with prefix length, as '192.0.2.1/24'. They stay while the"
            " carrier is away.",
        ),
        Property(
            "DefaultRoutes",
            "as",
            lambda i: [f"ipv{family}" for family in sorted(i.default_routes)],
            "The address families ('ipv4', 'ipv6') for which the main table has a default route"
            " over it.",
        ),
    ),
)
