"""Fuzz target: a file of rules, and what its matches make of connections."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir

from mptcpd_dbus.core.connections import Connection
from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.core.types import FourTuple
from mptcpd_dbus.policy.match import Match
from tests.fuzz.configuration import one_line

LENGTH = 2048

RuleFile = import_module("plugins.rules").RuleFile  # a plugin is no module for type checkers

FILE = Path(gettempdir()) / "rules.toml"
CONNECTIONS = [
    Connection(
        number=1,
        token=2,
        four_tuple=FourTuple(*four_tuple),
        server_side=server_side,
        deny_join_id0=False,
        mapped=False,
        uid=1000,
        cgroup=7,
    )
    for server_side in (False, True)
    for four_tuple in (("10.0.1.1", 4000, "10.0.9.1", 443), ("fd00::1", 443, "fd00::9", 4000))
]
UNITS = ("user.slice", "user@1000.service", "app-" + "a" * 200 + ".scope")


def seeds() -> Iterator[bytes]:
    """Give what the documentation shows, each key, and a value as deep as one can be."""
    rule = b'[[rule]]\nname = "web"\nstrategy = "fullmesh"\n'
    yield from (
        rule + b'interfaces = ["wlan*"]\n[rule.match]\nport = [443, 8443]\nuid = ["root"]\n',
        rule + b'match = {prefix = "10.0.0.0/8, fd00::/8", unit = "app-*", side = "server"}\n',
        rule + b"[rule.settings]\nmax-subflows = 2\n" + rule,
        rule + b'match.port = "443,\n80"\nsettings.x = """\na\n"""\n',
        b"a = " + b"[" * 900 + b"]" * 900,
        b"a = " + b"{a=" * 600,
        b"a" + b".a" * 900 + b" = 1",
    )


def check(data: bytes) -> None:
    """Read it, and ask every rule about connections of all kinds."""
    FILE.write_bytes(data)
    try:
        file = RuleFile(FILE)
    except ConfigurationError as error:
        one_line(error)
        return
    for number, rule in enumerate(file.rules):
        assert Match.model_validate(rule.match.model_dump()) == rule.match
        for connection in CONNECTIONS:
            rule.match.fits(connection, lambda _: UNITS)
        assert str(file.wrong(("rule", number, "strategy"), "")).startswith("rules.toml:")
