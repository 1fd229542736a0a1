"""The product on a booted Debian: installed as the README says, word by word, by somebody who may.

It knows the README's commands, and where the wheels are that spare the machine the network.
"""
# SPDX-License-Identifier: BSD-3-Clause

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.documents import README, command_lines
from tests.lab import users
from tests.lab.bus import Kind
from tests.lab.sandbox import REPOSITORY
from tests.system import release
from tests.system.machine import Machine
from tests.system.release import Release

UNIT = "mptcpd-dbus.service"
ADMIN = "erin"
"""Who installs, and may: sudo(8) asks her nothing."""

PASSWORD = "correct horse"  # noqa: S105  that of a machine that nobody else reaches
"""Of bob, who is an administrator to polkit."""

_SOURCES = f"home/{ADMIN}/mptcpd-dbus"
_NOT_SOURCES = (".git", *(REPOSITORY / ".gitignore").read_text().replace("/", "").split())


SYSTEMS: tuple[tuple[Release, Kind], ...] = (
    (release.RELEASES[0], "dbus-daemon"),
    (release.RELEASES[1], "dbus-broker"),
)
"""What is tested on: each release, and each bus."""


@dataclass(frozen=True)
class Installed:
    """A system on which the package is installed, and what was said when it was."""

    release: Release
    bus: Kind
    layers: tuple[Path, ...]
    said: dict[str, str]
    """What each command line of the README printed."""


def furnished(which: Release, bus: Kind, namespace: str | None = None) -> Machine:
    """Give a machine, off yet, with people, and with the sources in the home of one who may all."""
    wheels = {release.wheels(which): release.WHEELS}
    machine = Machine([release.pristine(which)], bus=bus, namespace=namespace, binds=wheels)
    root = machine.root
    people = {name: uid for name, uid in users.PEOPLE.items() if name != users.DAEMON}
    for name, uid in {**people, ADMIN: 64014}.items():
        argv = [
            "useradd",
            "--key=UID_MAX=64999",
            "--create-home",
            "--shell=/bin/bash",
            f"--uid={uid}",
            name,
        ]
        subprocess.run(["chroot", str(root), *argv], check=True)
    become = "usermod --append --groups=sudo bob && chpasswd"
    argv = ["chroot", str(root), "sh", "-c", become]
    subprocess.run(argv, check=True, text=True, input=f"bob:{PASSWORD}\n")
    (root / "etc/sudoers.d/lab").write_text(f"{ADMIN} ALL=(ALL) NOPASSWD: ALL\n")
    ignored = shutil.ignore_patterns(*_NOT_SOURCES)
    shutil.copytree(REPOSITORY, root / _SOURCES, ignore=ignored, symlinks=True)
    subprocess.run(["chroot", str(root), "chown", "-R", f"{ADMIN}:", f"/{_SOURCES}"], check=True)
    return machine


def typed(machine: Machine, line: str) -> str:
    """Have the admin type a line where the sources are; give what is printed."""
    there = f"cd /{_SOURCES} && {line}"
    return machine.run("runuser", "--login", ADMIN, "--command", there)


@functools.cache
def install(which: Release, bus: Kind) -> Installed:
    """Install the package on a new machine and switch that off; once in a sandbox."""
    lines = command_lines(README)
    first = next(n for n, line in enumerate(lines) if line.startswith("sudo apt install"))
    last = lines.index("mptcpctl status", first)
    with furnished(which, bus) as machine:
        said = {line: typed(machine, line) for line in lines[first : last + 1]}
    return Installed(which, bus, (machine.layer, release.pristine(which)), said)


def package(installed: Installed) -> Path:
    """Give the package that was made there."""
    (file,) = (installed.layers[0] / _SOURCES / "build/deb").glob("*.deb")
    return file


def newer_package(machine: Machine, version: str) -> str:
    """Make a package of what is installed there under another version; give its path there."""
    script = """\
set -e
cd "$(mktemp -d)"
dpkg-deb --raw-extract /%s/build/deb/*.deb package
sed -i "s/^Version: .*/Version: $1/" package/DEBIAN/control
dpkg-deb --root-owner-group --build package .
echo "$PWD"/*.deb
"""
    return machine.run("sh", "-c", script % _SOURCES, "sh", version).split()[-1]
