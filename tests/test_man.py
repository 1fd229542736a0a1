"""The man pages are well formed, and true: they have all that the code has, and nothing else."""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
from pathlib import Path

import pytest

from tests import manual

PAGES = sorted(manual.DIRECTORY.iterdir())


def _lint(page: Path) -> str:
    argv = ["mandoc", "-T", "lint", "-W", "style", str(page)]
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout


def _groff(page: Path) -> str:
    """Show a page as man-db does; give what groff complains of."""
    argv = ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_and_groff_have_nothing_to_say_about_a_page(page: Path) -> None:
    assert not _lint(page)
    assert not _groff(page)


def test_a_mistake_in_a_page_would_be_named(tmp_path: Path) -> None:
    """The control."""
    wrong = tmp_path / "wrong.5"
    wrong.write_text(manual.CONTRACT.read_text().replace(".TP\n", ".TPP\n", 1))

    assert "unknown macro" in _lint(wrong)
    assert "macro 'TPP' not defined" in _groff(wrong)
