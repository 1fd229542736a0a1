"""Who may write where plugins come from: real directories, modes, owners and swaps.

Each refusal stands beside the nearest thing that is taken.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import AF_UNIX, socket

import pytest

from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.policy.files import MAX_SIZE, PluginDirectory, PluginProblem
from tests.lab.sandbox import REPOSITORY, SCRATCH
from tests.lab.users import PEOPLE

ALICE = PEOPLE["alice"]
USERS = 100  # a group that everybody may be in
TEXT = b'"""A plugin."""\n'
ACL = "system.posix_acl_access"


def _make(directory: Path, mode: int = 0o755) -> Path:
    directory.mkdir()
    directory.chmod(mode)
    _write(directory / "one.py")
    return directory


def _write(file: Path, mode: int = 0o644, text: bytes = TEXT) -> Path:
    file.write_bytes(text)
    file.chmod(mode)
    return file


def _names(directory: Path) -> list[str]:
    with closing(PluginDirectory(directory)) as opened:
        return opened.names()


def _read(directory: Path, name: str = "one") -> bytes:
    with closing(PluginDirectory(directory)) as opened:
        return opened.read(name)


def _refuse_directory(directory: Path, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        PluginDirectory(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def _refuse_file(directory: Path, words: str, name: str = "one") -> None:
    with pytest.raises(PluginProblem, match=re.escape(words)) as caught:
        _read(directory, name)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


@contextmanager
def _as_alice() -> Iterator[None]:
    os.seteuid(ALICE)
    try:
        yield
    finally:
        os.seteuid(0)


def _acl_for_alice(path: Path) -> None:
    """As `setfacl -m u:alice:rwx` writes it, <linux/posix_acl_xattr.h>."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, ALICE), (4, 0, nobody), (16, 7, nobody), (32, 5, nobody)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, ACL, value)


@pytest.fixture(name="directory")
def _directory(tmp_path: Path) -> Path:
    return _make(tmp_path / "plugins")


@pytest.fixture(name="public")
def _public() -> Iterator[Path]:
    """Give a directory that other users can reach."""
    directory = Path(tempfile.mkdtemp(dir=SCRATCH))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


# The directory


def test_plugins_are_the_python_files_in_alphabetical_order(directory: Path) -> None:
    for name in ("two.py", ".hidden.py", "README", "one.pyc"):
        _write(directory / name)
    (directory / "__pycache__").mkdir()
    _write(directory / "an.py")

    assert _names(directory) == ["an", "one", "two"]
    assert _read(directory) == TEXT


def test_a_directory_for_its_owner_and_the_owners_own_group_is_taken(tmp_path: Path) -> None:
    assert _names(_make(tmp_path / "plugins", 0o770)) == ["one"]


def test_a_directory_that_everybody_can_write_is_refused(directory: Path) -> None:
    directory.chmod(0o777)

    _refuse_directory(directory, f"writable by everybody (mode 0777): chmod go-w {directory}")


def test_a_sticky_directory_is_taken_as_a_parent_only(tmp_path: Path) -> None:
    sticky = _make(tmp_path / "sticky", 0o1777)
    below = _make(sticky / "plugins")

    assert _names(below) == ["one"]
    _refuse_directory(sticky, "writable by everybody (mode 1777)")


def test_a_directory_below_one_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    parent = _make(tmp_path / "parent")
    directory = _make(parent / "plugins")
    assert _names(directory) == ["one"]

    parent.chmod(0o777)

    _refuse_directory(directory, f"{parent} is writable by everybody (mode 0777)")


@pytest.mark.usefixtures("people")
def test_a_directory_that_a_foreign_group_can_write_is_refused(directory: Path) -> None:
    directory.chmod(0o750)
    os.chown(directory, 0, USERS)
    assert _names(directory) == ["one"]

    directory.chmod(0o770)

    _refuse_directory(directory, f"by the group users (gid 100) (mode 0770): chmod g-w {directory}")


@pytest.mark.usefixtures("people")
def test_a_directory_of_somebody_else_is_refused(public: Path) -> None:
    directory = _make(public / "plugins")
    os.chown(directory, ALICE, ALICE)

    _refuse_directory(directory, f"owned by alice (uid {ALICE}), neither by root nor by uid 0")
    with _as_alice():
        assert _names(directory) == ["one"]


@pytest.mark.usefixtures("people")
def test_a_directory_below_somebody_elses_is_refused(public: Path) -> None:
    directory = _make(public / "plugins")
    assert _names(directory) == ["one"]

    os.chown(public, ALICE, ALICE)

    _refuse_directory(directory, f"{public} is owned by alice (uid {ALICE})")


@pytest.mark.usefixtures("people")
def test_a_sticky_parent_of_somebody_else_is_refused(public: Path) -> None:
    directory = _make(public / "plugins")
    public.chmod(0o1777)
    assert _names(directory) == ["one"]

    os.chown(public, ALICE, ALICE)

    _refuse_directory(directory, f"chown root {public}")
    os.chown(directory, ALICE, ALICE)
    with _as_alice():
        _refuse_directory(directory, f"{public} is writable by everybody (mode 1777)")


@pytest.mark.usefixtures("people")
def test_a_user_has_the_group_of_the_passwd_entry_and_no_other(public: Path) -> None:
    directory = _make(public / "plugins", 0o770)
    os.chown(directory, ALICE, ALICE)
    with _as_alice():
        assert _names(directory) == ["one"]

    os.chown(directory, ALICE, PEOPLE["bob"])

    with _as_alice():
        _refuse_directory(directory, "writable by the group bob")


@pytest.mark.usefixtures("people")
def test_an_owner_without_an_account_has_no_group(public: Path) -> None:
    nobody = 64099
    directory = _make(public / "plugins", 0o770)
    os.chown(directory, nobody, nobody)
    os.seteuid(nobody)
    try:
        _refuse_directory(directory, f"writable by the group {nobody} (mode 0770)")
        directory.chmod(0o750)
        assert _names(directory) == ["one"]
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("people")
def test_a_directory_with_an_access_control_list_for_writers_is_refused(tmp_path: Path) -> None:
    directory = _make(tmp_path / "plugins", 0o775)
    assert _names(directory) == ["one"]

    _acl_for_alice(directory)

    assert directory.stat().st_mode & 0o777 == 0o775
    _refuse_directory(directory, f"by an access control list (mode 0775): setfacl -b {directory}")
    directory.chmod(0o755)  # this is the list's mask: nobody on it can write now
    assert _names(directory) == ["one"]


@pytest.mark.usefixtures("people")
def test_a_directory_that_we_cannot_read_is_refused_with_the_reason(public: Path) -> None:
    directory = _make(public / "plugins", 0o755)
    with _as_alice():
        assert _names(directory) == ["one"]

    directory.chmod(0o700)

    with _as_alice():
        _refuse_directory(directory, "Permission denied; give plugin-dir a directory that")


def test_what_is_missing_or_no_directory_is_refused(directory: Path) -> None:
    _refuse_directory(directory / "missing", "No such file or directory")
    _refuse_directory(directory / "one.py", f"{directory}/one.py is not a directory")
    _refuse_directory(directory / "one.py" / "below", f"{directory}/one.py is not a directory")
    _refuse_directory(directory / "a\0b", "null byte")


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("mode", "said"), [(0o755, "['one']"), (0o777, "/ is writable by every")])
def test_the_root_itself_is_judged_too(tmp_path: Path, mode: int, said: str) -> None:
    root = _make(tmp_path / "root", mode)
    _make(root / "plugins")
    (root / "proc").mkdir()
    script = (
        "import os, sys; from pathlib import Path; from mptcpd_dbus.policy import files\n"
        "os.chroot(sys.argv[1])\n"
        "try: print(files.PluginDirectory(Path('/plugins')).names())\n"
        "except files.ConfigurationError as error: print(error)"
    )
    argv = [sys.executable, "-c", script, str(root)]

    ran = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, text=True)

    assert said in ran.stdout


# Links on the way


def test_links_in_safe_directories_are_followed_wherever_they_lead(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "absolute").symlink_to(tmp_path)
    (tmp_path / "relative").symlink_to("./absolute/../" + tmp_path.name + "/plugins")

    assert _names(tmp_path / "absolute" / "plugins") == ["one"]
    assert _names(tmp_path / "absolute" / "relative") == ["one"]
    assert _names(directory / ".." / "relative") == ["one"]


def test_the_way_back_up_is_judged_and_named_by_where_it_leads(directory: Path) -> None:
    back = directory.parent / "other" / ".." / "plugins"
    _make(directory.parent / "other")
    assert _names(back) == ["one"]

    directory.chmod(0o777)

    _refuse_directory(back, f"not safe: {directory} is writable by everybody")


def test_a_path_is_taken_from_the_working_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)

    assert _names(Path("plugins")) == ["one"]


def test_a_link_to_an_unsafe_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    assert _names(link) == ["one"]

    directory.chmod(0o777)

    _refuse_directory(link, f"{directory} is writable by everybody")


def test_a_link_in_a_directory_that_everybody_can_write_is_refused(
    directory: Path, tmp_path: Path
) -> None:
    unsafe = _make(tmp_path / "unsafe")
    (unsafe / "link").symlink_to(directory)
    assert _names(unsafe / "link") == ["one"]

    unsafe.chmod(0o777)

    _refuse_directory(unsafe / "link", f"{unsafe} is writable by everybody")


def test_a_link_through_an_unsafe_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    """Even if it ends in a safe one: the last link is swapped as easily as the first."""
    unsafe = _make(tmp_path / "unsafe")
    (unsafe / "second").symlink_to(directory)
    (tmp_path / "first").symlink_to(unsafe / "second")
    assert _names(tmp_path / "first") == ["one"]

    unsafe.chmod(0o777)

    _refuse_directory(tmp_path / "first", f"{unsafe} is writable by everybody")


@pytest.mark.usefixtures("people")
def test_somebody_elses_link_in_a_sticky_directory_is_refused(
    directory: Path, tmp_path: Path
) -> None:
    link = _make(tmp_path / "sticky", 0o1777) / "link"
    link.symlink_to(directory)
    assert _names(link) == ["one"]

    os.chown(link, ALICE, ALICE, follow_symlinks=False)

    _refuse_directory(link, f"{link} is owned by alice")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    _refuse_directory(tmp_path / "circle", "Too many levels of symbolic links")


# The files


@pytest.mark.parametrize("name", ["../x", "..", "", "a.b", "a/b", "/etc/passwd", "a\n", "ä", "a-b"])
def test_a_name_that_could_leave_the_directory_is_refused(directory: Path, name: str) -> None:
    _write(directory.parent / "x.py")
    _write(directory / "a_B1.py")

    assert _read(directory, "a_B1") == TEXT
    _refuse_file(directory, "letters, digits and underscores", name)


def test_a_missing_plugin_is_said_to_be_missing(directory: Path) -> None:
    _refuse_file(directory, f"there is no {directory}/two.py", "two")


def test_a_file_that_everybody_can_write_is_refused(directory: Path) -> None:
    file = _write(directory / "one.py", 0o660)
    assert _read(directory) == TEXT

    file.chmod(0o666)

    _refuse_file(directory, f"{file} is writable by everybody (mode 0666): chmod go-w {file}")


def test_the_sticky_bit_does_not_save_a_file(directory: Path) -> None:
    _write(directory / "one.py", 0o1666)

    _refuse_file(directory, "writable by everybody (mode 1666)")


@pytest.mark.usefixtures("people")
def test_a_file_of_somebody_else_is_refused(directory: Path) -> None:
    os.chown(directory / "one.py", ALICE, 0)
    _refuse_file(directory, f"one.py is owned by alice (uid {ALICE})")

    os.chown(directory / "one.py", 0, ALICE)
    assert _read(directory) == TEXT


@pytest.mark.usefixtures("people")
def test_a_file_that_a_foreign_group_can_write_is_refused(directory: Path) -> None:
    file = _write(directory / "one.py", 0o640)
    os.chown(file, 0, USERS)
    assert _read(directory) == TEXT

    file.chmod(0o660)

    _refuse_file(directory, f"writable by the group users (gid 100) (mode 0660): chmod g-w {file}")


@pytest.mark.usefixtures("people")
def test_a_file_with_an_access_control_list_for_writers_is_refused(directory: Path) -> None:
    file = _write(directory / "one.py", 0o664)
    assert _read(directory) == TEXT

    _acl_for_alice(file)

    _refuse_file(directory, f"setfacl -b {file}")


@pytest.mark.usefixtures("people")
def test_a_file_that_we_cannot_read_is_refused_with_the_reason(public: Path) -> None:
    directory = _make(public / "plugins")
    with _as_alice():
        assert _read(directory) == TEXT

    (directory / "one.py").chmod(0o600)

    with _as_alice():
        _refuse_file(directory, f"Permission denied; let uid {ALICE} read it")


@pytest.mark.parametrize("outside", [True, False])
def test_a_link_is_no_plugin_wherever_it_points(directory: Path, outside: bool) -> None:
    target = _write((directory.parent if outside else directory) / "target.py")
    (directory / "two.py").symlink_to(target)

    assert target.stem not in _names(directory) or _read(directory, "target") == TEXT
    _refuse_file(directory, f"{directory}/two.py is a symbolic link", "two")


def _bind(place: Path) -> None:
    with socket(AF_UNIX) as bound:
        bound.bind(str(place))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, _bind])
def test_what_is_no_regular_file_is_refused_at_once(
    directory: Path, make: Callable[[Path], None]
) -> None:
    make(directory / "two.py")

    assert _names(directory) == ["one", "two"]
    _refuse_file(directory, f"{directory}/two.py is not a regular file", "two")


def test_a_file_has_a_largest_size(directory: Path) -> None:
    _write(directory / "one.py", text=b"#" * MAX_SIZE)
    assert len(_read(directory)) == MAX_SIZE

    _write(directory / "one.py", text=b"#" * 2 * MAX_SIZE)

    _refuse_file(directory, "larger than the 1048576 bytes")


def test_a_file_swapped_for_a_link_after_the_listing_is_refused(directory: Path) -> None:
    target = _write(directory.parent / "target.py")
    with closing(PluginDirectory(directory)) as opened:
        assert opened.names() == ["one"]
        assert opened.read("one") == TEXT

        (directory / "one.py").unlink()
        (directory / "one.py").symlink_to(target)

        with pytest.raises(PluginProblem, match="symbolic link"):
            opened.read("one")


def test_a_directory_swapped_after_it_was_judged_changes_nothing(directory: Path) -> None:
    with closing(PluginDirectory(directory)) as opened:
        directory.rename(directory.parent / "aside")
        _write(_make(directory, 0o777) / "one.py", text=b"# another")

        assert opened.read("one") == TEXT
    directory.chmod(0o755)
    assert _read(directory) == b"# another"


def test_a_closed_directory_gives_nothing(directory: Path) -> None:
    opened = PluginDirectory(directory)
    opened.close()
    opened.close()

    with pytest.raises(PluginProblem, match="Bad file descriptor"):
        opened.read("one")


def test_no_descriptor_is_left_open(directory: Path) -> None:
    before = list(Path("/proc/self/fd").iterdir())

    _read(directory)
    _refuse_file(directory, "there is no", "two")
    _refuse_directory(directory / "missing", "No such file")

    assert list(Path("/proc/self/fd").iterdir()) == before
