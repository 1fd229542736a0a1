"""make install and make uninstall: what is there, that it runs, and that nothing is left.

In a directory that stands for the root of a system; to run what is in it, its /usr is laid over the
machine's, where only that process sees it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mptcpd_dbus
from tests.installation import ENVIRONMENT, expected, make
from tests.lab.daemon import Daemon
from tests.lab.hosts import LINKS, Lab
from tests.lab.sandbox import REPOSITORY, SCRATCH, over_usr
from tests.lab.wait import eventually

OTHER = "/usr/local"
FIXED = ("/etc/", "/usr/share/dbus-1/system", "/usr/share/polkit-1/")
"""What is not below the prefix, since those who read it would not look there."""


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a directory where other users can read what is installed there."""
    directory = SCRATCH / "installed"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def _files(root: Path) -> set[str]:
    return {f"/{f.relative_to(root)}" for f in root.rglob("*") if f.is_symlink() or f.is_file()}


def _moved(path: str) -> str:
    return path if path.startswith(FIXED) else path.replace("/usr", OTHER, 1)


@pytest.mark.parametrize("prefix", ["/usr", OTHER])
def test_every_file_that_the_system_wants_is_installed_and_taken_away_again(
    root: Path, prefix: str
) -> None:
    """Each with its text, in which /usr is the prefix where that is meant."""
    place = _moved if prefix == OTHER else str
    make("install", root, f"PREFIX={prefix}")

    shared = {path for path in _files(root) if not path.startswith(place(ENVIRONMENT))}
    assert shared == {place(path) for path in expected()}
    for path, source in expected().items():
        installed = root / place(path)[1:]
        assert installed.stat().st_mode & 0o7777 == (0o755 if "/bin/" in path else 0o644)
        named = re.compile(
            r"/usr/(bin/mptcp|lib(exec)?/mptcpd\\?-dbus)|(?<=^prefix=)/usr", re.MULTILINE
        )
        text = named.sub(lambda found: place(found[0]), source.read_text())
        assert installed.read_text() == text, path
    make("uninstall", root, f"PREFIX={prefix}")
    assert _files(root) == set()
    assert [d for d in root.rglob("*") if "mptcpd" in d.name] == []


def test_the_environment_has_the_package_and_what_the_lock_file_says(root: Path) -> None:
    make("install", root)
    (packages,) = root.glob(f"{ENVIRONMENT[1:]}/lib/python3.*/site-packages")

    found = {d.name.removesuffix(".dist-info") for d in packages.glob("*.dist-info")}
    lock = (REPOSITORY / "systemd/requirements.lock").read_text()
    wanted = re.findall(r"^([\w-]+)==([\w.]+) \\$", lock, re.MULTILINE)
    assert found == {f"{name.replace('-', '_')}-{version}" for name, version in wanted}
    ours = {f.relative_to(REPOSITORY) for f in REPOSITORY.glob("mptcpd_dbus/**/*.py")}
    assert ours == {f.relative_to(packages) for f in packages.glob("mptcpd_dbus/**/*.py")}
    assert len([*packages.glob("mptcpd_dbus/**/*.pyc")]) == len(ours)
    assert (packages / "mptcpd_dbus/py.typed").exists()
    assert str(root) not in (root / ENVIRONMENT[1:] / "pyvenv.cfg").read_text()


def test_another_installation_leaves_nothing_of_the_one_before_in_the_environment(
    root: Path,
) -> None:
    make("install", root)
    before = _files(root)
    (packages,) = root.glob(f"{ENVIRONMENT[1:]}/lib/python3.*/site-packages")
    (packages / "mptcpd_dbus/gone.py").touch()

    make("install", root)

    assert _files(root) == before


def test_a_changed_configuration_is_kept(root: Path) -> None:
    """By another installation, and when all else goes."""
    make("install", root)
    configuration = root / "etc/mptcpd-dbus/mptcpd-dbus.conf"
    configuration.write_text("[core]\n")
    make("install", root)
    assert configuration.read_text() == "[core]\n"

    make("uninstall", root)

    assert _files(root) == {"/etc/mptcpd-dbus/mptcpd-dbus.conf"}


def test_the_installed_commands_run_from_there_alone(root: Path, tmp_path: Path) -> None:
    """Whatever Python finds elsewhere."""
    make("install", root)
    (tmp_path / "mptcpd_dbus.py").write_text("raise SystemExit('misled')")
    misled = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"}

    for command in ("mptcpctl", "mptcpd-dbus"):
        argv = over_usr(root / "usr", [f"/usr/bin/{command}", "--version"])
        said = subprocess.check_output(argv, env=misled, cwd=tmp_path, text=True)
        assert said == f"{command} {mptcpd_dbus.__version__}\n"
    argv = ["python3", "-c", "import mptcpd_dbus"]
    control = subprocess.run(argv, env=misled, cwd=tmp_path, check=False)
    assert control.returncode != 0


async def test_the_installed_daemon_gives_the_kernel_the_addresses_and_writes_no_sysctl(
    root: Path, lab: Lab, daemon: Callable[..., Daemon]
) -> None:
    """With the configuration and the plugins that are installed."""
    make("install", root)
    before = lab.run("client", ["sysctl", "net.mptcp"])
    config = root / "etc/mptcpd-dbus/mptcpd-dbus.conf"
    await daemon().start("--config", str(config), installed=root / "usr")

    def status() -> str:
        return lab.run("client", over_usr(root / "usr", ["/usr/bin/mptcpctl", "status"]))

    steered = f"the kernel, by its endpoints ({2 * len(LINKS)} of mptcpd)"
    await eventually(lambda: steered in status())
    assert [line.split()[:2] for line in status().splitlines()[-1:]] == [["addr_adv", "running"]]
    assert lab.run("client", ["sysctl", "net.mptcp"]) == before
