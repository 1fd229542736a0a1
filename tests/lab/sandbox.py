"""Runs a command in namespaces of its own, so that tests touch nothing of the host and leave none.

    .venv/bin/python -m tests.lab.sandbox COMMAND...

As root with mount, network, pid and ipc namespaces; as anybody else the same below a user
namespace, see unshare(1), user_namespaces(7).  It must not know what the command does.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "MPTCPD_DBUS_SANDBOX"
SCRATCH = Path("/run/lab")
PRIVATE = ("--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")


def inside() -> bool:
    """Whether this process lives in the sandbox."""
    return MARK in os.environ


def initial_root() -> bool:
    """Whether this is real root, who has other users to test with."""
    whole = "0 0 4294967295"
    return os.getuid() == 0 and Path("/proc/self/uid_map").read_text().split() == whole.split()


def readable_repository() -> Path:
    """Return where users other than the owner can read the repository, wherever it is cloned."""
    return SCRATCH / "repository" if initial_root() else REPOSITORY


def main(command: list[str]) -> int:
    """Enter the namespaces first, then be their init: run the command and reap what it leaves."""
    if command[:1] != ["--init"]:
        identity = [] if initial_root() else ["--user", "--map-root-user"]
        again = [sys.executable, "-m", "tests.lab.sandbox", "--init", *command]
        os.execvp("unshare", ["unshare", *identity, *PRIVATE, "--propagation", "private", *again])  # noqa: S606 - no shell wanted
    os.umask(0o022)
    _furnish()
    # pytest's usual place may be that of another user who tested here.
    environment = os.environ | {MARK: "1", "PYTEST_DEBUG_TEMPROOT": str(SCRATCH)}
    with subprocess.Popen(command[1:], env=environment) as child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command itself
        while True:
            pid, status = os.wait()
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _furnish() -> None:
    """Give the namespaces a /run of their own, a /sys that shows their devices, and loopback."""
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    _mount("-t", "sysfs", "sysfs", "/sys")
    for directory in ("/run/netns", "/run/dbus", str(SCRATCH)):
        Path(directory).mkdir(mode=0o755)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if initial_root():
        _share(readable_repository())


def _share(place: Path) -> None:
    """Show the repository to other users, even one below /root or cloned with a strict umask."""
    overlay(REPOSITORY, place)
    unasked = ["-name", ".venv", "-prune", "-o", "-name", ".git", "-prune", "-o"]
    chmod = ["!", "-type", "l", "!", "-perm", "-004", "-exec", "chmod", "go+rX", "{}", "+"]
    subprocess.run(["find", str(place), *unasked, *chmod], check=True)


def overlay(lower: Path, target: Path) -> None:
    """Mount a directory's contents at the target, writable without effect on the original."""
    layers = SCRATCH / "layers" / str(target).strip("/").replace("/", "-")
    for layer in (layers / "upper", layers / "work"):
        layer.mkdir(parents=True)
    target.mkdir(exist_ok=True)
    options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
    _mount("-t", "overlay", "-o", options, "overlay", str(target))


def over_usr(layer: Path, argv: Sequence[str]) -> list[str]:
    """Give what runs argv where the layer lies over /usr, for that process alone."""
    mount = 'mount -t overlay -o "lowerdir=$0:/usr" overlay /usr && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, str(layer), *argv]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
