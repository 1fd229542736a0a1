"""What the security document names exists, and each of its claims has a test."""
# SPDX-License-Identifier: BSD-3-Clause

import re

from tests.contract import REPOSITORY
from tests.documents import SECURITY, rows

TESTS = set(
    re.findall(
        r"^\s*(?:async )?def (test_\w+)\(",
        "".join(file.read_text() for file in (REPOSITORY / "tests").rglob("test_*.py")),
        re.MULTILINE,
    )
)
TABLES = (
    *("## Who may call what", "## Hostile arguments", "## Bounds", "## Amplification"),
    "## Files, plugins, confinement",
)


def test_every_test_that_it_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", SECURITY.read_text()))

    assert len(named) > 60
    assert named - TESTS == set()


def test_a_test_that_does_not_exist_is_found() -> None:
    assert "test_nobody_has_written_this" not in TESTS


def test_every_claim_has_a_test() -> None:
    claims = [row for heading in TABLES for row in rows(SECURITY, heading)]

    assert len(claims) > 40
    assert [row[0] for row in claims if "`test_" not in row[-1]] == []


def test_every_place_that_it_names_exists() -> None:
    places = re.findall(r"`([\w/-]+\.(?:py|conf|policy|service))(?::(\w+))?`", SECURITY.read_text())

    assert len(places) > 30
    for file, name in places:
        found = [REPOSITORY / file, REPOSITORY / "mptcpd_dbus" / file]
        [path] = [path for path in found if path.is_file()]
        defined = rf"^(class |def |[\w, ]*){name}\b"
        assert re.search(defined, path.read_text(), re.MULTILINE), f"{file}:{name}"
