"""The man page is whole: each command, word, option and exit status is in it as in the table."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.ctl.commands import COMMANDS, GLOBAL_OPTIONS
from mptcpd_dbus.ctl.failure import STATUSES
from mptcpd_dbus.ctl.grammar import Argument, Command, Keyword, Option
from tests.documents import MANUAL


def _section(title: str) -> str:
    """Give a section without line breaks, but for those before an entry."""
    section = MANUAL.read_text().partition(f"\n.SH {title}\n")[2].partition("\n.SH")[0]
    return section.replace("\n", " ").replace(".TP .B ", "\n").replace("\\-", "-")


def _entry(name: str, words: str) -> str:
    return f"\n{name} {words[0].upper()}{words[1:]}."


def _name(it: Argument | Keyword) -> str:
    match it:
        case Argument():
            return it.name
        case Option():
            return f"{', '.join(filter(None, [it.letter, it.word]))} {it.metavar}".strip()
        case Keyword():
            return f"{it.word} {it.metavar}".strip()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_is_in_it(command: Command) -> None:
    section = _section("COMMANDS")
    entry = _entry(command.usage, command.words)
    assert entry in section

    own = section.partition(entry)[2].partition(".RE")[0]
    assert command.more in own
    things: list[Argument | Keyword]
    things = [*command.arguments, *command.keywords, *command.options]
    for thing in things:
        if thing.words not in ("the connection", "the subflow", "the plugin"):  # NAMES has them
            assert _entry(_name(thing), thing.words) in own


def test_options_and_exit_statuses_are_in_it() -> None:
    for option in GLOBAL_OPTIONS:
        assert _entry(_name(option), option.words) in _section("OPTIONS")
    for status, words in STATUSES.items():
        assert _entry(str(status), words) in _section("EXIT STATUS")
