"""The man pages, and what is in them: sections, entries, examples.

Reads only those macros and escapes of man(7) that our pages are written in.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
from pathlib import Path

from tests.lab.sandbox import REPOSITORY

DIRECTORY = REPOSITORY / "docs/man"
DAEMON, CONFIGURATION = DIRECTORY / "mptcpd-dbus.8", DIRECTORY / "mptcpd-dbus.conf.5"
PLUGIN, CONTRACT = DIRECTORY / "mptcpd-dbus-plugin.7", DIRECTORY / "org.mptcpd1.5"
CLIENT = DIRECTORY / "mptcpctl.1"
PAGES = (CLIENT, CONFIGURATION, CONTRACT, PLUGIN, DAEMON)

_ESCAPES = {r"\-": "-", r"\(aq": "'", r"\e": "\\", r"\&": ""}


def plain(source: str) -> str:
    """Give the text of some lines, in one line and without fonts."""
    return " ".join(filter(None, map(_words, source.splitlines())))


def section(page: Path, title: str) -> str:
    """Give the source of a section, or of a subsection."""
    found = re.search(rf'^\.S([HS]) "?{re.escape(title)}"?\n', page.read_text(), re.MULTILINE)
    assert found, f"{page.name}: {title}"
    end = r"^\.SH" if found[1] == "H" else r"^\.S[HS]"
    return re.split(end, page.read_text()[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def entries(page: Path, title: str) -> dict[str, str]:
    """Give the entries of a section, not of its subsections, and what is said of each."""
    found = {}
    for entry in section(page, title).partition("\n.SS")[0].split(".TP\n")[1:]:
        tag, _, body = entry.partition("\n")
        found[plain(tag)] = plain(body.partition("\n.PP")[0])
    return found


def examples(page: Path) -> list[str]:
    """Give what stands between .EX and .EE."""
    found = re.findall(r"^\.EX\n(.*?)^\.EE$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [_unescaped(block) for block in found]


def _words(line: str) -> str:
    macro = re.match(r"\.([BIR]{1,2}) (.*)", line)
    if macro:
        words = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', macro[2])]
        line = ("" if len(macro[1]) == 2 else " ").join(words)
    elif line.startswith("."):
        return ""
    return _unescaped(re.sub(r"\\f[BIRP]", "", line))


def _unescaped(text: str) -> str:
    for escape, meant in _ESCAPES.items():
        text = text.replace(escape, meant)
    return text
