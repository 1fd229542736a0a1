"""What a command of mptcpctl consists of; help, man page, completion and parser all read this.

Knows no command and imports next to nothing: `mptcpctl --help` must be there at once.
"""
# SPDX-License-Identifier: BSD-3-Clause

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a word stands for: how it is read, and what completes it."""

    CONNECTION = auto()
    SUBFLOW = auto()
    ADDRESS = auto()
    PORT = auto()
    ID = auto()
    NUMBER = auto()
    SECONDS = auto()
    INTERVAL = auto()
    COUNT = auto()
    INTERFACE = auto()
    PLUGIN = auto()
    USER = auto()
    BUS = auto()
    SWITCH = auto()
    PATH_MANAGER = auto()
    FILE = auto()


CHOICES = {Kind.SWITCH: ("on", "off"), Kind.PATH_MANAGER: ("kernel", "userspace")}


@dataclass(frozen=True)
class Argument:
    """A word that stands in its place: `CONNECTION`."""

    name: str
    kind: Kind
    words: str
    optional: bool = False


@dataclass(frozen=True)
class Keyword:
    """A word with a value behind it, `dev IFNAME`, or alone, `backup`; in any order."""

    word: str
    words: str
    kind: Kind | None = None
    metavar: str = ""


@dataclass(frozen=True)
class Option(Keyword):
    """The same with dashes, and perhaps a letter for short."""

    letter: str = ""


@dataclass(frozen=True)
class Command:
    """One command; `run` names "module:function" below this package, imported when it is run.

    The first command of a group is what the group's name alone means.
    """

    name: str
    words: str
    run: str
    arguments: tuple[Argument, ...] = ()
    keywords: tuple[Keyword, ...] = ()
    options: tuple[Option, ...] = ()
    more: str = ""

    @property
    def usage(self) -> str:
        """The command as ip(8) writes usage: brackets around what may be left out."""
        words = [self.name]
        open_brackets = 0
        for argument in self.arguments:
            open_brackets += argument.optional
            words.append(f"[{argument.name}" if argument.optional else argument.name)
        words[-1] += "]" * open_brackets
        words += [f"[{_spelt(keyword)}]" for keyword in (*self.keywords, *self.options)]
        return " ".join(words)


def _spelt(keyword: Keyword) -> str:
    return f"{keyword.word} {keyword.metavar}" if keyword.metavar else keyword.word
