"""The real command with options and files: what it does with them, and the status it ends with."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.lab.bus import ADDRESS, PrivateBus
from tests.lab.client import NAME, BusClient
from tests.lab.daemon import Daemon
from tests.lab.hosts import Lab
from tests.lab.sandbox import REPOSITORY, SCRATCH
from tests.lab.wait import eventually

EX_USAGE, EX_UNAVAILABLE, EX_CONFIG = 64, 69, 78
COMMAND = [sys.executable, "-m", "mptcpd_dbus"]
SERVES = f"serves {NAME}"


def _ended(argv: list[str]) -> tuple[int, str]:
    """Run a command that ends by itself; give its status and the one line that it says."""
    ran = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=20, cwd=REPOSITORY
    )
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.returncode, ran.stderr


def _file(file: Path, text: str) -> Path:
    """Write what every user can read and only we can write."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)
    return file


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log="], "--log needs a value"),
        (["--log=foo"], "--log='foo'"),
        (["-l", "foo"], "--log='foo'"),
        (["--foo"], "unrecognized arguments: --foo"),
        (["--path-manager="], "--path-manager needs a value"),
        (["--plugin-dir="], "--plugin-dir needs a value"),
        (["--load-plugins="], "--load-plugins needs a value"),
        (["--load-plugins=,"], "--load-plugins=','"),
        (["--addr-flags=bogus"], "--addr-flags='bogus'"),
        (["--notify-flags=bogus"], "--notify-flags='bogus'"),
        (["stray"], "unrecognized arguments: stray"),
    ],
    ids=str,
)
def test_a_wrong_command_line_ends_with_64_and_names_the_option(
    arguments: list[str], words: str
) -> None:
    status, said = _ended([*COMMAND, *arguments])

    assert status == EX_USAGE
    assert said.startswith(f"mptcpd-dbus: {words}")


def test_a_wrong_file_ends_with_78_and_names_file_and_line(tmp_path: Path) -> None:
    for text, words in (
        ("[core]\nlog=paper\n", ":2: log='paper'"),
        ("[core]\n\nlogs=null\n", ":3: unknown key 'logs'"),
    ):
        file = _file(tmp_path / "x.conf", text)

        status, said = _ended([*COMMAND, "--log=stderr", "--config", str(file)])

        assert status == EX_CONFIG
        assert said.startswith(f"mptcpd-dbus: {file}{words}")

    status, said = _ended([*COMMAND, "--config", f"{tmp_path}/missing"])
    assert (status, said) == (EX_CONFIG, f"mptcpd-dbus: {tmp_path}/missing does not exist\n")


def test_a_file_that_everybody_may_write_ends_it_with_78(tmp_path: Path) -> None:
    file = _file(tmp_path / "x.conf", "[core]\n")
    file.chmod(0o666)

    status, said = _ended([*COMMAND, "--config", str(file)])

    assert status == EX_CONFIG
    assert f"{file} can be written by everybody (mode 0666)" in said


def test_a_fifo_keeps_it_not_waiting_and_ends_it_with_78(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    status, said = _ended([*COMMAND, "--config", f"{tmp_path}/fifo"])

    assert status == EX_CONFIG
    assert f"{tmp_path}/fifo is no regular file" in said


def test_a_directory_of_c_plugins_ends_it_with_78(tmp_path: Path) -> None:
    _file(tmp_path / "theirs/sspi.so", "")

    status, said = _ended([*COMMAND, "--plugin-dir", f"{tmp_path}/theirs"])

    assert status == EX_CONFIG
    assert "plugins of the C daemon" in said
    assert "/usr/lib/mptcpd-dbus" in said


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("name", "line"), [("mptcpd-dbus.conf", 2), ("mptcpd-dbus.conf.d/50-local.conf", 2)]
)
def test_by_default_it_reads_the_file_below_etc_and_its_drop_ins(
    name: str, line: int, tmp_path: Path
) -> None:
    """With an /etc of its own."""
    _file(tmp_path / "etc/mptcpd-dbus" / name, "[core]\nlog=paper\n")
    mount = 'mount --bind "$0" /etc && exec "$@"'

    status, said = _ended(
        ["unshare", "--mount", "sh", "-c", mount, str(tmp_path / "etc"), *COMMAND]
    )

    assert status == EX_CONFIG
    assert said.startswith(f"mptcpd-dbus: /etc/mptcpd-dbus/{name}:{line}: log='paper'")


# What it runs with


async def test_a_daemon_reads_its_file_as_its_own_user_and_stops_clean(
    daemon: Callable[..., Daemon],
) -> None:
    """The file's `log=null` is seen to count, and the command line to win over it."""
    file = _file(SCRATCH / "configuration/x.conf", "[core]\nlog=null\n")
    started = daemon()

    await started.start("--config", str(file))
    assert await started.stop() == 0
    assert started.log.read_text() == ""

    await started.start("--config", str(file), "--log", "stderr")
    assert await started.stop() == 0
    log = started.log.read_text()
    assert SERVES in log
    assert "DEBUG" not in log  # without --debug; the control of the next test


async def test_every_option_of_the_c_daemon_is_taken(daemon: Callable[..., Daemon]) -> None:
    """Of what is said twice, the last one counts."""
    nowhere, plugins = SCRATCH / "nowhere", SCRATCH / "plugins"
    plugins.mkdir(mode=0o755, exist_ok=True)
    started = daemon()

    await started.start(
        *("--log=null", "--log", "stderr", "--debug"),
        *("--plugin-dir", str(nowhere), "--plugin-dir", str(plugins)),
        *("--addr-flags=signal", "--addr-flags=subflow,backup"),
        *("--notify-flags=existing,skip_link_local", "--notify-flags="),
    )

    assert await started.stop() == 0
    log = started.log.read_text()
    assert SERVES in log
    assert "DEBUG" in log


Run = Callable[..., Awaitable[tuple[str, str]]]


@pytest.fixture
async def run(lab: Lab, bus: PrivateBus, tmp_path: Path) -> AsyncIterator[Run]:
    """Give what runs a daemon that has a /dev/log until it serves, and stops it.

    The answer is what it wrote on stderr and what came to /dev/log.
    """
    del bus  # it must only be there
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("null", "urandom"):
        (devices / name).touch()
    mount = (
        "for name in null urandom; do mount --bind /dev/$name $0/$name; done"
        ' && mount --rbind "$0" /dev && exec "$@"'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(devices / "log"))
        log.setblocking(False)

        async def until_stopped(*arguments: str) -> tuple[str, str]:
            argv = ["unshare", "--mount", "sh", "-c", mount, str(devices), *COMMAND]
            argv += ["--bus", ADDRESS, *arguments]
            errors = tmp_path / "stderr"
            with errors.open("wb") as stderr:
                process = lab.popen("client", argv, stderr=stderr, cwd=REPOSITORY)
            async with await BusClient.connect() as client:

                async def ready() -> bool:
                    assert process.poll() is None, errors.read_text()
                    return await client.owns(NAME)

                await eventually(ready, within=15)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            return errors.read_text(), _arrived(log)

        yield until_stopped


def _arrived(log: socket.socket) -> str:
    found = ""
    while True:
        try:
            found += log.recv(65536).decode() + "\n"
        except BlockingIOError:
            return found


@pytest.mark.parametrize("place", ["stderr", "syslog", "journal", "null"])
async def test_it_logs_where_it_is_told_to(run: Run, bus: PrivateBus, place: str) -> None:
    for option in (["--log", place], [f"-l{place}"]):
        bus.entries.clear()
        stderr, syslog = await run(*option)
        journal = [entry.get("MESSAGE", "") for entry in bus.entries]

        assert (SERVES in stderr) == (place == "stderr")
        assert ("mptcpd-dbus: " in syslog) == (SERVES in syslog) == (place == "syslog")
        assert any(SERVES in message for message in journal) == (place == "journal")
        if place != "stderr":
            assert stderr == ""


# Where MPTCP is off


async def test_without_mptcp_it_ends_with_69_and_names_the_sysctl(
    lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    lab.sysctl("client", "net.mptcp.enabled", 0)
    # An ordinary user's sandbox may not ask for the large buffer, which would be a second line.
    argv = [*COMMAND, "--bus", ADDRESS, "--netlink-buffer", "65536"]
    status, said = _ended(lab.command("client", argv))
    assert status == EX_UNAVAILABLE
    assert "net.mptcp.enabled=1" in said

    lab.sysctl("client", "net.mptcp.enabled", 1)
    started = daemon()
    await started.start()
    assert await started.stop() == 0
