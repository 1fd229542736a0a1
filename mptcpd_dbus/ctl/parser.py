"""Reads a command line: whatever is one of a few words may be shortened, as ip(8) takes them."""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mptcpd_dbus.ctl.commands import COMMANDS, GLOBAL_OPTIONS
from mptcpd_dbus.ctl.failure import Misuse
from mptcpd_dbus.ctl.grammar import Command, Keyword, Option
from mptcpd_dbus.ctl.values import choose, read


@dataclass
class Call:
    """What was typed: the command, and the values by name, without dashes.

    *name* is what was typed of the command's name, in full: nothing, a group, or all of it.
    """

    command: Command = COMMANDS[0]
    name: str = ""
    given: dict[str, Any] = field(default_factory=dict)


def parse(arguments: Sequence[str]) -> Call:
    """Read *arguments*; with --help or --version nothing else needs to be right."""
    if any("\ud800" <= letter <= "\udfff" for word in arguments for letter in word):
        raise Misuse("the command line is not UTF-8, and D-Bus takes nothing else")
    words, call = list(arguments), Call()
    plain: list[str] = []
    while words and not is_plain(words[0]):
        _take_option(words, GLOBAL_OPTIONS, call)
    if words:
        call.name = choose("command", words.pop(0), dict.fromkeys(map(first_word, COMMANDS)))
        call.command, *others = group(call.name)
        if others:
            _take_second_word(words, [call.command, *others], call)
    options = (*GLOBAL_OPTIONS, *call.command.options)
    while words:
        if words[0] == "--":
            plain += words[1:]
            break
        if is_plain(words[0]):
            _take_plain(words, call.command, plain, call)
        else:
            _take_option(words, options, call)
    if not {"help", "version"} & call.given.keys():
        _place(call.command, plain, call)
    return call


def group(name: str) -> list[Command]:
    """Give the commands whose name is, or begins with, that word."""
    return [command for command in COMMANDS if first_word(command) == name]


def first_word(command: Command) -> str:
    """Give the group that a command is in, or its name if it is in none."""
    return command.name.split()[0]


def second_word(command: Command) -> str:
    """Give what a command that is in a group is called there."""
    return command.name.split()[1]


def is_plain(word: str) -> bool:
    """Whether a word is no option."""
    return not word.startswith("-") or word == "-"


def find_option(word: str, options: Iterable[Option]) -> Option:
    """Give the option that is called so, by its letter or any beginning that only one has."""
    by_word = {option.word: option for option in options}
    by_letter = {option.letter: option for option in by_word.values() if option.letter}
    return by_letter.get(word) or by_word[choose("option", word, by_word)]


def find_keyword(word: str, command: Command, plain: int) -> Keyword | None:
    """Give the keyword that a word is, after so many plain ones; arguments come first."""
    required = sum(not argument.optional for argument in command.arguments)
    found = [keyword for keyword in command.keywords if keyword.word.startswith(word)]
    if plain < required or not found:
        return None
    return next(k for k in found if k.word == choose("keyword", word, [k.word for k in found]))


def _take_second_word(words: list[str], members: list[Command], call: Call) -> None:
    """Choose from a group; its name alone means its first command, if that needs nothing."""
    while words and not is_plain(words[0]):
        _take_option(words, GLOBAL_OPTIONS, call)
    names = {second_word(command): command for command in members}
    if words:
        call.command = names[choose(f"command {call.name}", words.pop(0), names)]
        call.name = call.command.name
    elif call.command.arguments and "help" not in call.given:
        raise Misuse(f"{call.name}: say what to do: {', '.join(names)}")


def _take_option(words: list[str], options: Iterable[Option], call: Call) -> None:
    word, equals, value = words.pop(0).partition("=")
    option = find_option(word, options)
    if equals and option.kind is None:
        raise Misuse(f"{word} takes no value")
    if equals:
        words.insert(0, value)
    _take_value(option, words, call)


def _take_plain(words: list[str], command: Command, plain: list[str], call: Call) -> None:
    """Take a keyword, where one can stand, or a word that stands in its place."""
    word = words.pop(0)
    keyword = find_keyword(word, command, len(plain))
    if keyword:
        _take_value(keyword, words, call)
    else:
        plain.append(word)


def _take_value(keyword: Keyword, words: list[str], call: Call) -> None:
    name = keyword.word.removeprefix("--")
    if name in call.given:
        raise Misuse(f"{keyword.word} is there twice")
    if keyword.kind is None:
        call.given[name] = True
    elif not words:
        raise Misuse(f"{keyword.word}: {keyword.metavar} is missing")
    else:
        call.given[name] = read(keyword.kind, words.pop(0))


def _place(command: Command, plain: list[str], call: Call) -> None:
    """Give each plain word to its argument."""
    required = [argument for argument in command.arguments if not argument.optional]
    if len(plain) < len(required):
        raise Misuse(f"{command.name}: {required[len(plain)].name} is missing")
    if len(plain) > len(command.arguments):
        raise Misuse(f"{command.name}: what is {plain[len(command.arguments)]!r}?")
    for argument, word in zip(command.arguments, plain, strict=False):
        call.given[argument.name] = read(argument.kind, word)
