"""The interface org.mptcpd1.Interface: a network interface of the host."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.bus.interface import Interface, Property
from mptcpd_dbus.bus.names import INTERFACE_PREFIX

NETWORK_INTERFACE = Interface(
    INTERFACE_PREFIX + "Interface",
    "A network interface of this host, as rtnetlink(7) tells it. The last six properties are what"
    " NetworkManager adds; while it does not run, they are 'unknown', false or ''.",
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
            "AddressMarks",
            "a{sas}",
            lambda i: i.marks,
            "What is special of addresses, those of which nothing is are left out: 'deprecated'"
            " (no longer preferred, RFC 4862), 'temporary' (RFC 8981), 'link-scope', 'host-scope',"
            " and 'routed' (a default route of any table leads from it over this interface)."
            " More words may come.",
        ),
        Property(
            "DefaultRoutes",
            "a{su}",
            lambda i: {
                f"ipv{family}": i.default_routes[family] for family in sorted(i.default_routes)
            },
            "The address families ('ipv4', 'ipv6') for which the main table has a default route"
            " over it, each with the metric of the best one.",
        ),
        Property(
            "Managed", "b", lambda i: i.management.managed, "Whether NetworkManager manages it."
        ),
        Property(
            "Metered",
            "s",
            lambda i: i.management.metered,
            "Whether data over it costs: 'yes', 'no', 'guess-yes', 'guess-no' or 'unknown'.",
        ),
        Property(
            "Connectivity",
            "s",
            lambda i: i.management.connectivity,
            "What can be reached over it, the better of IPv4 and IPv6: 'none', 'portal' (a login"
            " page), 'limited', 'full' or 'unknown'.",
        ),
        Property(
            "Primary",
            "b",
            lambda i: i.management.primary,
            "Whether it has the connection that NetworkManager takes for the primary one.",
        ),
        Property(
            "DeviceType",
            "s",
            lambda i: i.management.device_type,
            "NetworkManager's word for the device: 'ethernet', 'wifi', 'modem', 'bt', 'wireguard',"
            " ...; one that has none yet is a number.",
        ),
        Property(
            "ConnectionId",
            "s",
            lambda i: i.management.connection_id,
            "The name of NetworkManager's connection profile that is active on it, or ''.",
        ),
    ),
)
