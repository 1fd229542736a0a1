"""make deb: what is in the package, what lintian(1) says, and that nothing is left after a purge.

It is installed and purged in a throw-away copy of this machine's root.
"""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mptcpd_dbus
from tests.installation import ENVIRONMENT, expected, make
from tests.lab.sandbox import REPOSITORY, SCRATCH, overlay
from tests.lab.users import DAEMON

NAME = "mptcpd-dbus"
RIVALS = ("mptcpd", "libmptcpd3", "libmptcpd3-dev")
UNIT = f"/lib/systemd/system/{NAME}.service"
WANTED = f"/etc/systemd/system/multi-user.target.wants/{NAME}.service"
ALIAS = "/etc/systemd/system/dbus-org.mptcpd1.service"
OTHERS = ("/var/lib/dpkg/", "/var/cache/", "/var/log/")
ACCOUNTS = {
    *("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"),
    *("/etc/subuid", "/etc/subgid", "/etc/.pwd.lock"),
}
"""What dpkg(1) and useradd(8) write of themselves."""


@pytest.fixture(scope="module")
def package() -> Path:
    """Give the package, made anew."""
    make("deb", Path())
    (package,) = (REPOSITORY / "build/deb").glob("*.deb")
    return package


@pytest.fixture
def root(people: None) -> Iterator["Root"]:
    """Give a copy of this machine's root that costs nothing; only root can have it."""
    del people  # who only says that we are root
    place = SCRATCH / "root"
    overlay(Path("/"), place)
    for directory in ("dev", "proc"):
        subprocess.run(["mount", "--rbind", f"/{directory}", str(place / directory)], check=True)
    made = Root(place)
    made.run("dpkg", "--purge", *RIVALS)  # whoever has run the benchmarks has them
    yield made
    subprocess.run(["umount", "--recursive", "--lazy", str(place)], check=True)


class Root:
    """A root directory."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def run(self, *argv: str) -> str:
        """Return what a command there prints; it must succeed."""
        chroot = ["chroot", str(self.place), *argv]
        ran = subprocess.run(chroot, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def changed(self) -> set[str]:
        """Give the files there that are not as they were."""
        layer = SCRATCH / "layers/run-lab-root/upper"
        files = {f"/{f.relative_to(layer)}" for f in layer.rglob("*") if not f.is_dir()}
        return {file for file in files if not file.startswith(OTHERS)}

    def users(self) -> str:
        """Give the names of the users."""
        return self.run("getent", "passwd")


def test_the_package_has_what_is_installed_and_its_unit_is_enabled(
    package: Path, tmp_path: Path
) -> None:
    subprocess.run(["dpkg-deb", "--extract", str(package), str(tmp_path)], check=True)

    files = {f"/{f.relative_to(tmp_path)}" for f in tmp_path.rglob("*") if not f.is_dir()}
    found = {file.removesuffix(".gz") for file in files if not file.startswith(ENVIRONMENT)}
    units = {file for file in found if file.endswith(UNIT)}
    assert len(units) == 1  # which is below /usr since Debian 13
    about = {f"/usr/share/doc/{NAME}/{file}" for file in ("changelog", "copyright")}
    about.add(f"/usr/share/lintian/overrides/{NAME}")
    assert found - units - about == set(expected()) - {f"/usr{UNIT}"}


def test_the_package_says_what_it_is_and_what_it_needs(package: Path) -> None:
    def said(field: str) -> str:
        argv = ["dpkg-deb", "--field", str(package), field]
        return subprocess.check_output(argv, text=True).strip()

    interpreter = Path("/usr/bin/python3").resolve().name
    assert said("Version") == mptcpd_dbus.__version__
    assert {interpreter, "default-dbus-system-bus | dbus-system-bus"} <= {
        *said("Depends").split(", ")
    }
    assert "libc6 " in said("Depends")
    assert said("Conflicts") == "mptcpd"  # each daemon's unit stops the other


def test_lintian_has_nothing_to_say(package: Path) -> None:
    (changes,) = package.parent.glob("*.changes")
    argv = ["lintian", "--allow-root", "--fail-on", "error,warning", str(changes)]
    ran = subprocess.run(argv, check=False, capture_output=True, text=True)

    assert ran.stdout + ran.stderr == ""
    assert ran.returncode == 0


def test_what_the_package_brings_runs_and_a_purge_leaves_nothing(package: Path, root: Root) -> None:
    before, changed = root.users(), root.changed()
    (root.place / package.name).write_bytes(package.read_bytes())

    root.run("dpkg", "--install", f"/{package.name}")
    for command in ("mptcpctl", NAME):
        assert root.run(command, "--version") == f"{command} {mptcpd_dbus.__version__}\n"
    assert f"\n{DAEMON}:" in root.users()
    there = {file.removesuffix(".gz") for file in root.changed()}
    assert {WANTED, ALIAS, *expected()} - {f"/usr{UNIT}"} <= there
    (root.place / f"etc/{NAME}/rules.toml").write_text("")
    root.run("dpkg", "--purge", NAME)

    assert root.users() == before
    left = {file for file in root.changed() - changed if file.rstrip("-") not in ACCOUNTS}
    assert left == {f"/{package.name}"}
    assert not [*root.place.glob("*/*mptcpd*"), *root.place.glob("usr/*/*mptcpd*")]
