"""On a terminal tables fit and have colour; nowhere does a stranger's text steer it."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl, OnTerminal
from tests.e2e.stage import Stage
from tests.lab.plugin_files import PluginFiles, write_configuration

BOLD, GREEN, PLAIN = "\033[1m", "\033[32m", "\033[0m"

EVIL = '''
from mptcpd_dbus.plugin import Plugin


class Evil(Plugin):
    """\\x1b[2JNothing to see\\x9b1m \\u202e here, Zürich"""
'''


async def _shown(play: Stage, *words: str, columns: int = 80, **environment: str) -> str:
    with OnTerminal(Ctl(play.lab).argv(*words, **environment), columns) as terminal:
        assert await terminal.ended() == 0, terminal.shown
        return terminal.shown


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
async def test_a_table_fits_the_terminal(stage: MakeStage, columns: int) -> None:
    """Tokens are there at any width; all columns are where there is room."""
    play = await stage()
    pair, _ = await play.connection(await play.listener())

    lines = (await _shown(play, "list", columns=columns, NO_COLOR="1")).splitlines()

    assert [len(line) <= columns for line in lines] == [True, True]
    assert lines[1].startswith(f"{pair.token:08x}")
    titles = lines[0].split()
    assert titles[:1] == ["TOKEN"]
    assert "REMOTE" in titles
    assert ("USER" in titles) == (columns >= 120)


async def test_colour_is_for_terminals_and_for_those_who_want_it(stage: MakeStage) -> None:
    play = await stage()
    await play.connection(await play.listener())

    shown = await _shown(play, "list")
    assert f"{BOLD}TOKEN{PLAIN}" in shown
    assert f"{GREEN}established{PLAIN}" in shown
    assert "\033" not in await _shown(play, "list", NO_COLOR="1")
    assert "\033" not in await _shown(play, "list", TERM="dumb")
    assert "\033" in await _shown(play, "list", NO_COLOR="")
    assert "\033" not in Ctl(play.lab).said("list")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
async def test_no_text_of_strangers_steers_the_terminal(stage: MakeStage, locale: str) -> None:
    """A plugin's words and an interface's name; each is there, in letters."""
    files = PluginFiles()
    files.write("evil", EVIL)
    play = await stage(
        "--config", str(write_configuration("[core]\n")), "--plugin-dir", str(files.path)
    )
    name = "\033[31mred"
    play.lab.ip("client", "link", "set", "link2", "down")
    play.lab.ip("client", "link", "set", "link2", "name", name)
    play.lab.ip("client", "link", "set", name, "up")
    play.lab.ip("client", "addr", "add", "10.0.2.9/24", "dev", name)
    _, path = await play.connection(await play.listener())
    play.lab.ip("client", "route", "add", "10.0.9.1", "via", "10.0.2.2", "dev", name, "metric", 9)
    await play.create_subflow(path, LocalAddress="10.0.2.9")

    for words in ("plugin list", "plugin show evil", "status", "list", "show connection/1"):
        shown = await _shown(play, *words.split(), NO_COLOR="1", LC_ALL=locale)
        assert not [c for c in shown if not c.isprintable() and c not in "\r\n"], shown
        piped = Ctl(play.lab).said(*words.split(), NO_COLOR="1", LC_ALL=locale)
        assert not [c for c in piped if not c.isprintable() and c != "\n"], piped
    assert "\\x1b[31mred" in Ctl(play.lab).said("list", NO_COLOR="1", LC_ALL=locale)
    assert "Zürich" in Ctl(play.lab).said("plugin", "show", "evil", LC_ALL=locale)
