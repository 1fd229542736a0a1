"""The help of mptcpctl and of each command, from the table of commands."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Iterator, Sequence

from mptcpd_dbus.ctl.commands import COMMANDS, GLOBAL_OPTIONS
from mptcpd_dbus.ctl.failure import STATUSES
from mptcpd_dbus.ctl.grammar import Argument, Command, Kind, Option

WIDTH = 79
_COLUMN = 26

NAMING = {
    Kind.CONNECTION: "CONNECTION is a token as ss(8) and `ip mptcp monitor` print it, or a"
    " beginning of it that only one has; or connection/17 or '#17' for number 17, or an object"
    " path.",
    Kind.SUBFLOW: "SUBFLOW is CONNECTION/2 for number 2 of a connection, a 4-tuple as"
    " 10.0.1.1:4000-10.0.9.1:80, or an object path.",
}


def of_all(commands: Sequence[Command] = COMMANDS) -> str:
    """Give the help without a command, or of a group."""
    lines = ["Usage: mptcpctl [OPTION...] [COMMAND]", ""]
    if commands is COMMANDS:
        lines += [*fold("Watch and steer Multipath TCP, by the service mptcpd-dbus."), ""]
    lines.append("Commands, which may be shortened as long as they are unique:")
    for command in commands:
        name = " ".join([command.name, *(_bracketed(a) for a in command.arguments)])
        lines += entry(name, command.words)
    lines += ["", "Options:", *_options(GLOBAL_OPTIONS), ""]
    if commands is COMMANDS:
        statuses = "; ".join(f"{status}: {words}" for status, words in STATUSES.items())
        lines += [*fold(f"Exit status: {statuses}."), "", "See mptcpctl(1)."]
    else:
        lines.append("`mptcpctl COMMAND --help` tells more of each.")
    return "\n".join(lines)


def of(command: Command) -> str:
    """Give the help of one command."""
    lines = [*fold(f"Usage: mptcpctl {command.usage}", 14), "", *fold(f"{command.words}.")]
    if command.more:
        lines += fold(command.more)
    told = [(argument.name, argument.words) for argument in command.arguments]
    told += [(f"{k.word} {k.metavar}".strip(), k.words) for k in command.keywords]
    if told:
        lines.append("")
    for name, words in told:
        lines += entry(name, words)
    lines += ["", "Options:", *_options((*command.options, *GLOBAL_OPTIONS))]
    kinds = [argument.kind for argument in command.arguments]
    if Kind.SUBFLOW in kinds:
        kinds.append(Kind.CONNECTION)
    for kind in kinds:
        if kind in NAMING:
            lines += ["", *fold(NAMING[kind])]
    return "\n".join(lines)


def fold(text: str, indent: int = 0) -> Iterator[str]:
    """Break *text* into lines; all but the first are indented."""
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = " " * indent + word
        else:
            line = f"{line} {word}" if line else word
    yield line


def entry(name: str, words: str) -> list[str]:
    """Give the lines of one thing and what it means."""
    lines, line = [], f"  {name}"
    if len(line) >= _COLUMN:
        lines.append(line)
        line = ""
    line = line.ljust(_COLUMN)
    for word in words.split():
        if len(line) + len(word) > WIDTH:
            lines.append(line.rstrip())
            line = " " * _COLUMN
        line += f"{word} "
    return [*lines, line.rstrip()]


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        name = f"{option.letter}, {option.word}" if option.letter else f"    {option.word}"
        yield from entry(f"{name} {option.metavar}".rstrip(), option.words)


def _bracketed(argument: Argument) -> str:
    return f"[{argument.name}]" if argument.optional else argument.name
