"""What completes a command line: words of the table of commands, and names of what there is.

The shells' own files in completion/ call mptcpctl with __complete and the words, whose last is the
one to complete, and get a line for each candidate: the word, a tab, what it means.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mptcpd_dbus.bus.error_names import BusError
from mptcpd_dbus.bus.names import MANAGER, PLUGIN, ROOT
from mptcpd_dbus.ctl import find, things
from mptcpd_dbus.ctl.commands import COMMANDS, GLOBAL_OPTIONS
from mptcpd_dbus.ctl.daemon import Daemon
from mptcpd_dbus.ctl.failure import Failure
from mptcpd_dbus.ctl.grammar import CHOICES, Command, Kind, Option
from mptcpd_dbus.ctl.parser import (
    find_keyword,
    find_option,
    first_word,
    group,
    is_plain,
    second_word,
)
from mptcpd_dbus.ctl.values import choose
from mptcpd_dbus.ctl.view import harmless

_SECONDS = 2.0  # nobody waits longer for a completion

Candidates = Iterator[tuple[str, str]]


class Place(NamedTuple):
    """Where in a command line the next word stands."""

    name: str = ""
    command: Command | None = None
    plain: int = 0
    value: Kind | None = None
    bus: str = "system"


def complete(words: Sequence[str]) -> Iterator[str]:
    """Give the lines for the last word; a line that is wrong has none."""
    *typed, last = words or [""]
    try:
        place = _place(typed)
        for word, meaning in _candidates(place, last):
            if word.startswith(last):
                yield harmless(word) + "\t" + harmless(meaning)
    except (Failure, BusError, TimeoutError):
        return


def _place(typed: Sequence[str]) -> Place:
    """Go through what stands before."""
    place, bus_follows = Place(), False
    for word in typed:
        if place.value:
            place = place._replace(value=None, bus=word if bus_follows else place.bus)
        elif is_plain(word):
            place = _after_plain(place, word)
        else:
            name, equals, value = word.partition("=")
            option = find_option(name, _options(place))
            bus_follows = option.kind is Kind.BUS
            if not equals:
                place = place._replace(value=option.kind)
            elif bus_follows:
                place = place._replace(bus=value)
    return place


def _after_plain(place: Place, word: str) -> Place:
    if place.command is not None:
        keyword = find_keyword(word, place.command, place.plain)
        if keyword:
            return place._replace(value=keyword.kind)
        return place._replace(plain=place.plain + 1)
    known = dict(_names(place))
    name = f"{place.name} {choose('command', word, known)}".strip()
    return place._replace(name=name, command=next((c for c in COMMANDS if c.name == name), None))


def _options(place: Place) -> tuple[Option, ...]:
    return (*GLOBAL_OPTIONS, *(place.command.options if place.command else ()))


def _names(place: Place) -> Candidates:
    """Give the commands, or those of a group."""
    for command in COMMANDS:
        first = first_word(command)
        if place.name == first:
            yield second_word(command), command.words
        elif not place.name:
            members = group(first)
            yield (
                first,
                command.words if len(members) == 1 else ", ".join(map(second_word, members)),
            )


def _candidates(place: Place, last: str) -> Candidates:
    if place.value:
        yield from _values(place.value, place.bus)
    elif last.startswith("-"):
        yield from ((option.word, option.words) for option in _options(place))
    elif place.command is None:
        yield from dict(_names(place)).items()
    else:
        arguments = place.command.arguments
        if place.plain < len(arguments):
            yield from _values(arguments[place.plain].kind, place.bus)
        for keyword in place.command.keywords:
            if find_keyword(keyword.word, place.command, place.plain):
                yield keyword.word, keyword.words


def _values(kind: Kind, bus: str) -> Candidates:
    match kind:
        case Kind.INTERFACE:
            yield from ((name, "") for _, name in socket.if_nameindex())
        case Kind.BUS:
            yield from (("system", ""), ("session", ""))
        case Kind.CONNECTION | Kind.SUBFLOW | Kind.PLUGIN:
            yield from asyncio.run(_asked(kind, bus))
        case _:
            yield from ((word, "") for word in CHOICES.get(kind, ()))


async def _asked(kind: Kind, bus: str) -> list[tuple[str, str]]:
    async with asyncio.timeout(_SECONDS), Daemon.at(bus, ask_password=False) as daemon:
        if kind is Kind.PLUGIN:
            found = things.in_order(await daemon.below(f"{ROOT}/plugin", PLUGIN))
            return [(it["name"], it["description"]) for it in found]
        if kind is Kind.CONNECTION:
            listed = await daemon.read(ROOT, MANAGER, "ListConnections", "a{sv}uu", {}, 0, 0)
            return [(f"{its:08x}", path.removeprefix(f"{ROOT}/")) for path, its in listed]
        return [
            (f"{it['token']}/{things.number(subflow['path'])}", str(find.four_tuple(subflow)))
            for it in things.connections(await daemon.objects())
            for subflow in it["subflows"]
        ]
