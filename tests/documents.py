"""The documents, and what is in them: blocks of code, command lines, tables.

A man page is a document, too: its blocks are what stands between .EX and .EE.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import shlex
from pathlib import Path

from tests import manual
from tests.lab.sandbox import REPOSITORY

README, CONTRIBUTING = REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"
CHANGELOG, ARCHITECTURE = REPOSITORY / "CHANGELOG.md", REPOSITORY / "docs/architecture.md"
GLOSSARY = REPOSITORY / "docs/glossary.md"
API, EXAMPLES = REPOSITORY / "docs/dbus-api.md", REPOSITORY / "docs/examples"
PLUGINS, SHIP = REPOSITORY / "docs/plugins.md", REPOSITORY / "docs/ship-your-plugin.md"
MANUAL = manual.CLIENT
OWN = REPOSITORY / "docs/own-connections.md"
FROM_MPTCPD = REPOSITORY / "docs/from-mptcpd.md"
PERFORMANCE, SECURITY = REPOSITORY / "docs/performance.md", REPOSITORY / "docs/security.md"
DOCUMENTS = (
    *(README, CONTRIBUTING, CHANGELOG, ARCHITECTURE, GLOSSARY, PLUGINS, SHIP),
    *(API, OWN, FROM_MPTCPD, PERFORMANCE, SECURITY),
)

_BEGINS = {"console": r"\$ ", "ini": r"\[\w", "python": '"""', "toml": r"\[\["}


def blocks(document: Path, kind: str, heading: str = "") -> list[str]:
    """Give what stands between ```kind and ```; in a man page, what begins like that kind."""
    if document.parent == manual.DIRECTORY:
        return [text for text in manual.examples(document) if re.match(_BEGINS[kind], text)]
    text = _section(document, heading) if heading else document.read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def command_lines(document: Path) -> list[str]:
    """Give what a reader types after "$ "."""
    return typed("".join(blocks(document, "console")))


def typed(block: str) -> list[str]:
    """Give the lines of a block that way."""
    lines = block.replace("\\\n", "").splitlines()
    assert all(line.startswith("$ ") for line in lines), lines
    return [line.removeprefix("$ ") for line in lines]


def commands(document: Path) -> list[list[str]]:
    """Give the same in words, as a shell divides them."""
    return [shlex.split(line) for line in command_lines(document)]


def python_files(document: Path) -> dict[str, str]:
    """Give the Python blocks; each has the name of its file in its first line."""
    found = {}
    for block in blocks(document, "python"):
        mark, _, text = block.partition("\n")
        found[mark.removeprefix("# ")] = text
    return found


def rows(document: Path, heading: str) -> list[list[str]]:
    """Give the rows of the tables below *heading*, without their heads."""
    lines = _section(document, heading).splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line[:1] == "|"]
    ruled = {number for number, row in enumerate(table) if row[0].startswith("---")}
    found = [row for n, row in enumerate(table) if n not in ruled and n + 1 not in ruled]
    assert found, heading
    return found


def _section(document: Path, heading: str) -> str:
    """Give what stands below a heading, up to the next one."""
    text = document.read_text().partition(f"\n{heading}\n")[2]
    return re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
