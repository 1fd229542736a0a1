"""A command line is read as it is meant, or the line says what is wrong with it."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from mptcpd_dbus.ctl.failure import Misuse
from mptcpd_dbus.ctl.parser import parse


@pytest.mark.parametrize(
    ("typed", "command", "given"),
    [
        ("", "status", {}),
        ("status", "status", {}),
        ("lis", "list", {}),
        ("re", "reload", {}),
        ("list -j", "list", {"json": True}),
        ("--json list", "list", {"json": True}),
        ("list --port=443", "list", {"port": 443}),
        ("list --interf link2", "list", {"interface": "link2"}),
        ("show 1a2b", "show", {"CONNECTION": "1a2b"}),
        ("top -d 0.25 -n 3 -b", "top", {"interval": 0.25, "count": 3, "batch": True}),
        ("endpoint", "endpoint show", {}),
        ("e s id 3", "endpoint show", {"id": 3}),
        ("limits set subflow 4", "limits set", {"subflows": 4}),
        ("limits set add 2 sub 4", "limits set", {"add_addr_accepted": 2, "subflows": 4}),
        ("path-manager user", "path-manager", {"kernel|userspace": "userspace"}),
        ("sub b 1a/2 on", "subflow backup", {"SUBFLOW": "1a/2", "on|off": True}),
        ("sub del 1a/2", "subflow delete", {"SUBFLOW": "1a/2"}),
        ("sub add 1a dev eth0", "subflow add", {"CONNECTION": "1a", "dev": "eth0"}),
        (
            "sub add 1a dead::1 443 backup",
            "subflow add",
            {"CONNECTION": "1a", "REMOTE": "dead::1", "PORT": 443, "backup": True},
        ),
        ("plugin show -- --odd", "plugin show", {"NAME": "--odd"}),
        ("owner dev backup", "owner", {"CONNECTION": "dev", "NAME": "backup"}),
        ("--bus unix:path=/run/bus lis", "list", {"bus": "unix:path=/run/bus"}),
    ],
)
def test_a_line_is_read_as_it_is_meant(typed: str, command: str, given: dict[str, Any]) -> None:
    call = parse(typed.split())

    assert (call.command.name, call.given) == (command, given)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("s", "'s' may be status or show or subflow"),
        ("li", "'li' may be list or limits"),
        ("xyz", "there is no command 'xyz'; there are status, list,"),
        ("endpoint x", "there is no command endpoint 'x'; there are show, add,"),
        ("subflow", "subflow: say what to do: add, delete, backup"),
        ("show", "show: CONNECTION is missing"),
        ("show 1a 2b", "show: what is '2b'?"),
        ("list --port", "--port: PORT is missing"),
        ("list --port x", "'x' is no port: give a number from 0 to 65535"),
        ("list --port 1 --port 2", "--port is there twice"),
        ("list --p 1", "'--p' may be --port or --policy"),
        ("list --json=1", "--json takes no value"),
        ("status --interface eth0", "there is no option '--interface'"),
        *(
            (f"top -d {wrong}", f"'{wrong}' is no interval: give seconds from 0.1 to 3600")
            for wrong in ("0", "0.09", "3601", "-1", "1e2", "nan", "1.")
        ),
        ("top -n 0", "'0' is no count: give a number from 1 to 4294967295"),
        ("limits set s 9999999999", "'9999999999' is no limit"),
        ("endpoint add nonsense", "address"),
        ("endpoint change 10.0.2.1 full no", "'no' may be nobackup or nofullmesh"),
        ("path-manager mine", "there is no choice 'mine'; there are kernel, userspace"),
        ("--bus nowhere", "--bus: give system, session, or a D-Bus address"),
        ("show \udcff", "the command line is not UTF-8"),
        ("list --uid nobody-at-all", "there is no user 'nobody-at-all'"),
    ],
)
def test_a_wrong_line_is_refused_in_words_that_help(typed: str, words: str) -> None:
    with pytest.raises(Misuse) as refusal:
        parse(typed.split())

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("typed", ["--help", "show --help", "subflow -h", "e add -h", "show -V"])
def test_with_help_or_version_nothing_else_has_to_be_there(typed: str) -> None:
    assert parse(typed.split()).given.keys() & {"help", "version"}
