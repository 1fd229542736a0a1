"""A pristine Debian root of each release, and Python packages for it, made once and kept.

They are kept in the cache directory of whoever runs this ($XDG_CACHE_HOME), under a name that
changes with what they are made of.  Only this file needs the network.
See debootstrap(8), apt-get(8), pip-download.  It must not know what is tested there.
"""
# SPDX-License-Identifier: BSD-3-Clause

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.sandbox import REPOSITORY

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mptcpd-dbus")
WHEELS = "/wheels"
"""Where a root has the Python packages."""

# Beside what the Makefile installs: an init with sessions, what commands in documents are typed
# with, what is looked at from inside, and the other bus.
_SYSTEM = (
    *("systemd-sysv", "libpam-systemd", "dbus-user-session", "procps", "kmod", "login", "passwd"),
    *("sudo", "man-db", "ca-certificates", "ethtool", "dbus-broker"),
)


@dataclass(frozen=True)
class Release:
    """A release of Debian, by its code name."""

    name: str
    number: int
    python: str
    systemd: int

    def __str__(self) -> str:
        return f"debian{self.number}"


RELEASES = (
    Release("bookworm", 12, "3.11", 252),
    Release("trixie", 13, "3.13", 257),
)


def pristine(release: Release) -> Path:
    """Give the root of a release; where it does not exist yet, that takes minutes."""
    packages = [*_packages(), *_SYSTEM]
    host = "127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost\n"
    pip = f"[global]\nno-index = true\nfind-links = {WHEELS}\n"

    def make(root: Path) -> None:
        mirror = _mirror()
        _run("debootstrap", "--variant=minbase", release.name, str(root), mirror)
        script = (
            "mount -t proc proc /proc && apt-get -q update && "
            'DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$@" && '
            "apt-get clean"
        )
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        _run(*_ALONE, "chroot", str(root), "sh", "-ec", script, "sh", *packages)
        (root / "etc/resolv.conf").unlink()
        # dbus-broker makes itself the bus where it is installed.
        for scope in ("system", "user"):
            (root / f"etc/systemd/{scope}/dbus.service").unlink(missing_ok=True)
        (root / WHEELS.strip("/")).mkdir()
        (root / "etc/hostname").write_text("debian\n")
        (root / "etc/hosts").write_text(host)
        (root / "etc/pip.conf").write_text(pip)

    return _kept(release.name, f"{packages}{host}{pip}", make)


def wheels(release: Release) -> Path:
    """Give a directory with the Python packages of the lock file, where a root looks for them."""
    lock = REPOSITORY / "systemd/requirements.lock"
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{n}_{machine}" for n in (5, 12, 17, 28)]
    which = [*platforms, "--only-binary=:all:", f"--python-version={release.python}"]

    def make(place: Path) -> None:
        pip = (sys.executable, "-m", "pip", "download", "-q", f"--dest={place}", *which)
        _run(*pip, "--require-hashes", f"--requirement={lock}")

    return _kept(f"wheels-{release.python}", f"{which}{lock.read_text()}", make)


_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def _packages() -> list[str]:
    """Give what the Makefile installs."""
    text = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
    found = re.search(r"^PACKAGES := (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1].split()


def _mirror() -> str:
    """Give the mirror that this machine takes its Debian packages from."""
    argv = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"]
    lines = subprocess.check_output(argv, text=True).splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Debian "))


def _kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Give what was made by a recipe, or make it; half of it is never found."""
    made = CACHE / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with _locked(name):
        if not made.exists():
            for older in CACHE.glob(f"{name}-*"):
                shutil.rmtree(older)
            half = CACHE / f".{made.name}"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(mode=0o755)
            make(half)
            half.rename(made)
    return made


@contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*argv: str) -> None:
    ran = subprocess.run(argv, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
