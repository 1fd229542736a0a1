"""The product on a booted Debian: installed as the README says, word by word, by somebody who may.

It knows the README's commands, and where the wheels are that spare the machine the network.
"""
# SPDX-License-Identifier: BSD-3-Clause

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.documents import README, blocks, typed
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

PACKAGE, SOURCES, NO_LISTENERS, LISTENERS, AWAY = map(
    typed, blocks(README, "console", "## Install")
)
"""The command lines of the README's section, block by block; each is followed somewhere."""

_SOURCES = f"home/{ADMIN}/mptcpd-dbus"
_UNMANAGED = "[keyfile]\nunmanaged-devices=interface-name:link*\n"
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
    (root / "etc/NetworkManager/conf.d/lab.conf").write_text(_UNMANAGED)
    ignored = shutil.ignore_patterns(*_NOT_SOURCES)
    shutil.copytree(REPOSITORY, root / _SOURCES, ignore=ignored, symlinks=True)
    subprocess.run(["chroot", str(root), "chown", "-R", f"{ADMIN}:", f"/{_SOURCES}"], check=True)
    return machine


def follow(machine: Machine, lines: list[str]) -> dict[str, str]:
    """Have the admin type lines where the sources are; give what each printed."""
    there = f"cd /{_SOURCES} && "
    become = ("runuser", "--login", ADMIN, "--command")
    return {line: machine.run(*become, there + line) for line in lines}


@functools.cache
def install(which: Release, bus: Kind) -> Installed:
    """Install the package on a new machine and switch that off; once in a sandbox."""
    with furnished(which, bus) as machine:
        said = follow(machine, PACKAGE)
    return Installed(which, bus, (machine.layer, release.pristine(which)), said)


def package(installed: Installed) -> Path:
    """Give the package that was made there."""
    (file,) = (installed.layers[0] / _SOURCES / "build/deb").glob("*.deb")
    return file


def exposure(machine: Machine) -> float:
    """Give what systemd-analyze(1) says of the service."""
    said = machine.run("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


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
