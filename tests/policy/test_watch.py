"""Who has the loop: named when it was long, and in a note that outlives the process."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mptcpd_dbus.policy.watch import BLOCKED_SECONDS, KILLED_SECONDS, Run, Watch
from tests.lab.sandbox import REPOSITORY

DIES = """
import os, sys
from pathlib import Path
from mptcpd_dbus.policy.watch import Watch
watch = Watch(Path(sys.argv[1]))
exec(sys.argv[2])
os.abort()
"""


def _die(note: Path, code: str) -> None:
    """Have a process do something with a watch, and be killed."""
    ran = subprocess.run([sys.executable, "-c", DIES, str(note), code], check=False, cwd=REPOSITORY)
    assert ran.returncode == -6


def _later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    clock = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + seconds)


@pytest.mark.parametrize(
    ("code", "age", "suspect"),
    [
        ("watch.enter('it', 'new_connection')", 1, ("it", "new_connection")),
        ("watch.enter('it', 'new_connection')", -1, None),  # killed by somebody else, just now
        ("watch.enter('it', 'new_connection'); watch.leave()", 1, None),
        ("watch.enter('out', 'start'); watch.enter('in', 'import')", 1, ("in", "import")),
        ("watch.enter('out', 'a'); watch.enter('in', 'b'); watch.leave()", 1, ("out", "a")),
        ("watch.enter('long', 'x' * 5000)", 1, ("long", "x" * 4081)),
        ("watch.enter('odd', '\\udcff\\n')", 1, ("odd", "?\n")),
    ],
)
def test_a_note_survives_and_accuses_only_when_it_is_old(
    code: str,
    age: int,
    suspect: tuple[str, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = tmp_path / "note"
    _die(note, code)
    _later(monkeypatch, KILLED_SECONDS + age)

    assert Watch(note).suspect == suspect
    assert Watch(note).suspect is None  # it is accused once


def test_only_who_is_suspected_is_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _die(tmp_path / "note", "watch.enter('it', 'start')")
    _later(monkeypatch, KILLED_SECONDS + 1)
    watch = Watch(tmp_path / "note")

    watch.forgive("other")
    assert watch.suspect == ("it", "start")
    watch.forgive("it")
    assert watch.suspect is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"short"])
def test_any_content_of_the_file_can_be_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(content)

    Watch(tmp_path / "note")
    assert (tmp_path / "note").stat().st_size == 4096


def test_a_file_that_cannot_be_had_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "note").symlink_to(tmp_path / "elsewhere")

    watch = Watch(tmp_path / "note")
    watch.enter("it", "start")
    watch.leave()
    assert "will not be named" in caplog.text
    assert (tmp_path / "elsewhere").stat().st_size == 0


async def test_a_step_that_holds_the_loop_is_named_and_a_wait_is_not() -> None:
    watch = Watch()
    blocked: list[tuple[str, str, float]] = []
    watch.blocked = lambda *what: blocked.append(what)

    async def handler(first: float, second: float) -> None:
        time.sleep(first)  # noqa: ASYNC251 # that is the fault
        await asyncio.sleep(BLOCKED_SECONDS * 1.2)
        time.sleep(second)  # noqa: ASYNC251 # likewise

    await Run(watch, "it", "good", handler, (0, 0))
    assert blocked == []
    await Run(watch, "it", "bad", handler, (0, BLOCKED_SECONDS * 1.2))
    assert [(plugin, name) for plugin, name, _ in blocked] == [("it", "bad")]
    assert BLOCKED_SECONDS < blocked[0][2] < 2 * BLOCKED_SECONDS

    def no_coroutine() -> None:
        time.sleep(BLOCKED_SECONDS * 1.2)

    with pytest.raises(TypeError):
        await Run(watch, "it", "call", no_coroutine, ())  # type: ignore[arg-type] # the fault
    assert blocked[-1][:2] == ("it", "call")


async def test_what_a_handler_waits_for_reaches_it() -> None:
    """Results, errors and timeouts, as if nobody watched."""
    told: list[object] = []

    async def fail() -> None:
        raise ValueError("no")

    async def handler(argument: str) -> None:
        told.append(argument)
        told.append(await asyncio.sleep(0, "result"))
        with pytest.raises(ValueError, match="no"):
            await asyncio.ensure_future(fail())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        told.append("end")

    await Run(Watch(), "it", "handler", handler, ("argument",))
    assert told == ["argument", "result", "end"]


@pytest.mark.parametrize("odd", ["fifo", "full"])
def test_a_note_that_cannot_be_kept_is_said_and_no_more(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note = tmp_path / "note"
    if odd == "fifo":
        os.mkfifo(note)
    else:

        def full(*_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)

    watch = Watch(note)

    assert "will not be named" in caplog.text
    watch.enter("it", "start")
    watch.leave()
