"""D-Bus objects as what --json prints: the properties' names in small letters, tokens as ss(8)'s.

Pure.  What the daemon will have more one day is carried along; what is promised stands in
docs/mptcpctl.schema.json.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mptcpd_dbus.bus.names import CONNECTION, ROOT, SUBFLOW

Thing = dict[str, Any]
Objects = Mapping[str, Mapping[str, Mapping[str, Any]]]

UNKNOWN_UID = 0xFFFFFFFF


def thing(path: str, properties: Mapping[str, Any]) -> Thing:
    """Give one object."""
    made: Thing = {"path": path}
    for name, value in properties.items():
        key = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
        made[key] = plain(key, value)
    return made


def plain(key: str, value: Any) -> Any:
    """Give a value as programs want it: a token as ss(8) spells it, nothing as null."""
    match key:
        case "token":
            return f"{value:08x}"
        case "uid":
            return None if value == UNKNOWN_UID else value
        case _:
            return value


def number(path: str) -> int:
    """Give the number that ends the path of a connection, subflow or endpoint."""
    return int(path.rpartition("/")[2])


def connections(objects: Objects) -> list[Thing]:
    """Give all connections in the order of their numbers, each with its subflows."""
    found = {
        path: thing(path, properties) | {"subflows": []}
        for path, properties in of_kind(objects, CONNECTION).items()
    }
    for subflow in in_order(of_kind(objects, SUBFLOW)):
        if subflow["connection"] in found:
            found[subflow["connection"]]["subflows"].append(subflow)
    return sorted(found.values(), key=lambda connection: number(connection["path"]))


def in_order(found: Mapping[str, Mapping[str, Any]], *keys: str) -> list[Thing]:
    """Give the objects at these paths in the order of *keys*, then of their paths."""
    made = [thing(path, properties) for path, properties in found.items()]
    return sorted(made, key=lambda it: ([it[key] for key in keys], _natural(it["path"])))


def of_kind(objects: Objects, interface: str) -> dict[str, Mapping[str, Any]]:
    """Give the objects that have the interface."""
    return {path: its[interface] for path, its in objects.items() if interface in its}


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort 10 after 9."""
    words = path.removeprefix(ROOT).split("/")
    return [(int(word), "") if word.isdecimal() else (0, word) for word in words]


def matching(
    found: Iterable[Thing],
    *,
    interface: str | None = None,
    uid: int | None = None,
    address: str | None = None,
    port: int | None = None,
    policy: str | None = None,
) -> list[Thing]:
    """Give the connections that fit all that is given."""

    def ends(connection: Thing, what: str) -> set[Any]:
        flows = [connection, *connection["subflows"]]
        return {flow[f"{side}_{what}"] for flow in flows for side in ("local", "remote")}

    return [
        it
        for it in found
        if (interface is None or any(s["interface"] == interface for s in it["subflows"]))
        and (uid is None or it["uid"] == uid)
        and (address is None or address in ends(it, "address"))
        and (port is None or port in ends(it, "port"))
        and (policy is None or it["owner"] == policy)
    ]


def options(
    given: Mapping[str, Any], known: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, Any]]:
    """Give the options `a{sv}` of a method: each word that was typed by its name on the bus."""
    return {
        name: (signature, given[word]) for word, (name, signature) in known.items() if word in given
    }
