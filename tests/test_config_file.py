"""Configuration files: what stands where, which lines are wrong, and who may have written it."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mptcpd_dbus.config_file import (
    KEYS,
    LARGEST,
    Entry,
    Section,
    parse,
    plugin_sections,
    quoted,
    read,
)
from mptcpd_dbus.core.errors import ConfigurationError
from tests.lab.sandbox import initial_root

TEXT = b"[core]\nlog=stderr\n"


def _file(directory: Path, name: str = "x.conf", content: bytes = TEXT, mode: int = 0o644) -> Path:
    file = directory / name
    file.parent.mkdir(mode=0o755, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def _wrong(content: bytes) -> str:
    with pytest.raises(ConfigurationError) as wrong:
        parse(content, "/x.conf")
    return str(wrong.value)


def _refused(file: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read(file, required=True)
    return str(refused.value)


# What stands there


def test_each_value_has_its_section_key_text_and_place() -> None:
    content = b"# one\n\n[core]\nlog=journal\n[plugin sspi]\nmax-paths=2\n; end"

    assert parse(content, "/x.conf") == [
        Entry("core", "log", "journal", "/x.conf:4"),
        Entry("plugin sspi", "max-paths", "2", "/x.conf:6"),
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"log=null", "null"),
        (b"  log \t= null  ", "null"),
        (b"log=null\r", "null"),
        (b"log=", ""),
        (b"log=a=b", "a=b"),
        (b"log=a # b ; c", "a # b ; c"),
        ("log=\u00fc".encode(), "\u00fc"),
    ],
)
def test_a_value_is_the_rest_of_its_line_without_white_space_around(
    line: bytes, value: str
) -> None:
    ((_, _, found, _),) = parse(b"[core]\n" + line, "/x.conf")

    assert found == value


@pytest.mark.parametrize("name", [b"[core]", b"  [core] ", b"[ core ]"])
def test_a_section_may_have_white_space_around_and_be_opened_twice(name: bytes) -> None:
    content = b"%s\nlog=null\n[interfaces]\ndeny=lo\n%s\naddr-flags=\n" % (name, name)

    assert [entry[:2] for entry in parse(content, "")] == [
        ("core", "log"),
        ("interfaces", "deny"),
        ("core", "addr-flags"),
    ]


def test_every_key_is_known_in_its_section_only() -> None:
    for section, keys in KEYS.items():
        (other,) = KEYS.keys() - {section}
        for key in keys:
            assert len(parse(f"[{section}]\n{key}=x".encode(), "")) == 1
            assert f"unknown key '{key}'" in _wrong(f"[{other}]\n{key}=x".encode())


def test_plugins_get_their_own_sections_and_the_last_value_of_a_key_wins() -> None:
    entries = parse(b"[plugin a]\nx=1\n[core]\nlog=\n[plugin b]\nx=2\n[plugin  a]\nx=3\ny=4", "/f")

    assert plugin_sections(entries) == {
        "a": Section("a", {"x": "3", "y": "4"}, {"x": "/f:8", "y": "/f:9"}),
        "b": Section("b", {"x": "2"}, {"x": "/f:6"}),
    }


def test_a_section_knows_where_a_value_stands_or_its_own_name_where_it_is_missing() -> None:
    section = Section("sspi", {"x": "1"}, {"x": "/f:7"})

    assert section.where("x") == "/f:7"
    assert section.where("y") == "[plugin sspi]"


# What is wrong


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"log=null", ":1: 'log' stands in no section; write [core] above it"),
        (b"[core]\n\nlog", ":3: 'log' is no key=value, no [section], and no comment (# or ;)"),
        (b"[core]\n[cor]\n", ":2: unknown section 'cor'; there are [core], [interfaces] and"),
        (b"[]", ":1: unknown section ''"),
        (b"[Core]", ":1: unknown section 'Core'"),
        (b"[plugin]", ":1: unknown section 'plugin'"),
        (b"[plugin a-b]", ":1: unknown section 'plugin a-b'"),
        (b"[core] # all of it", ":1: '[core] # all of it' has no ] at its end"),
        (b"[core", ":1: '[core' has no ] at its end"),
        (b"[core]\n#\nlogs=null", ":3: unknown key 'logs'; [core] has log, plugin-dir, path"),
        (b"[core]\nLog=null", ":2: unknown key 'Log'"),
        (b"[core]\n=null", ":2: unknown key ''"),
        (b"[interfaces]\nlog=null", ":2: unknown key 'log'; [interfaces] has allow, deny"),
        (b"[plugin a]\nmax_paths=2", ":2: 'max_paths' cannot be a key; a key has letters,"),
        (b"[plugin a]\n=2", ":2: '' cannot be a key"),
        (b"[core]\nlog=\xe4\n", ":2: byte 5 is not UTF-8"),
        (b"# \xe4\n", ":1: byte 3 is not UTF-8"),
        (b"[core]\nlog=a\0b", ":2: a NUL byte"),
        (b"[core]\nlog", ":2: 'log' is no key=value"),
        (b"\xef\xbb\xbf[core]", ":1: '\\ufeff[core]' is no key=value"),
    ],
)
def test_a_wrong_line_is_named_with_what_was_expected(content: bytes, words: str) -> None:
    assert _wrong(content).startswith(f"/x.conf{words}")


def test_of_several_wrong_lines_the_first_is_told() -> None:
    assert _wrong(b"[core]\nlog=null\nfoo\n\xff\n[bar]").startswith("/x.conf:3: 'foo'")


def test_foreign_text_is_told_on_one_line_and_not_at_length() -> None:
    assert quoted("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(_wrong(b"[core]\n" + b"x" * 10_000)) < 200


LINES = st.sampled_from(
    [b"[core]", b"[interfaces]", b"[plugin a]", b"log=", b"x=", b"=", b"[", b"#", b"\0", b"\xff"]
)


@given(st.one_of(st.binary(), st.lists(st.one_of(LINES, st.binary())).map(b"\n".join)))
@example(b"[core]\nlog=null")
def test_random_bytes_are_read_or_refused_with_file_and_line(content: bytes) -> None:
    lines = content.split(b"\n")
    try:
        entries = parse(content, "/x.conf")
    except ConfigurationError as error:
        said = str(error)
    else:
        for entry in entries:
            assert entry.value in lines[int(entry.where.removeprefix("/x.conf:")) - 1].decode()
        return
    place, _, words = said.partition(": ")
    assert 1 <= int(place.removeprefix("/x.conf:")) <= len(lines)
    assert words
    assert "\n" not in said


# Which files


def test_drop_ins_are_read_after_the_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    file = _file(tmp_path)
    for name in ("70", "30", "90", "100", "50", "0", "80", "20-b", "20-a", "60", "40"):
        _file(tmp_path / "x.conf.d", f"{name}.conf")
    for name in ("30.txt", ".hidden.conf", "40.conf~"):
        _file(tmp_path / "x.conf.d", name)

    places = [entry.where for entry in read(file, required=True)]

    order = ("0", "100", "20-a", "20-b", "30", "40", "50", "60", "70", "80", "90")
    assert places == [f"{file}:2", *(f"{file}.d/{name}.conf:2" for name in order)]


def test_what_is_wrong_in_a_drop_in_is_told_with_its_name(tmp_path: Path) -> None:
    file = _file(tmp_path)
    drop_in = _file(tmp_path / "x.conf.d", "a.conf", b"[core]\nfoo\n")

    assert _refused(file).startswith(f"{drop_in}:2: 'foo'")


def test_a_section_does_not_reach_into_the_next_file(tmp_path: Path) -> None:
    file = _file(tmp_path)
    drop_in = _file(tmp_path / "x.conf.d", "a.conf", b"log=null\n")

    assert _refused(file).startswith(f"{drop_in}:1: 'log' stands in no section")


def test_a_missing_file_is_an_error_only_where_it_is_required(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    assert read(file, required=False) == []
    assert _refused(file) == f"{file} does not exist"

    drop_in = _file(tmp_path / "x.conf.d", "a.conf")
    assert [entry.where for entry in read(file, required=False)] == [f"{drop_in}:2"]
    assert _refused(file) == f"{file} does not exist"


def test_a_drop_in_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    file = _file(tmp_path)
    (tmp_path / "x.conf.d").mkdir(mode=0o755)
    link = tmp_path / "x.conf.d/a.conf"
    link.symlink_to(tmp_path / "nowhere")

    assert _refused(file) == f"{link} does not exist"
    link.unlink()
    link.symlink_to(_file(tmp_path, "somewhere"))
    assert [entry.where for entry in read(file, required=True)] == [f"{file}:2", f"{link}:2"]


def test_a_file_may_be_large_but_not_larger_than_anybody_writes(tmp_path: Path) -> None:
    whole = TEXT + b"#" * (LARGEST - len(TEXT))

    assert len(read(_file(tmp_path, content=whole), required=True)) == 1
    assert "is larger than" in _refused(_file(tmp_path, content=whole + b"#"))


# Who may have written it


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o400, 0o664])
def test_a_file_that_only_its_owner_may_write_is_read(tmp_path: Path, mode: int) -> None:
    """And one that the owner's own group may write."""
    file = _file(tmp_path, mode=mode)

    assert len(read(file, required=True)) == 1


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602])
def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = _file(tmp_path, mode=mode)

    assert _refused(file) == f"{file} can be written by everybody (mode {mode:04o}): chmod o-w"


@pytest.mark.skipif(not initial_root(), reason="only root can give files away")
def test_a_file_that_another_group_may_write_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, mode=0o664)
    os.chown(file, -1, 100)

    assert _refused(file) == f"{file} can be written by group 100 (mode 0664): chmod g-w"
    file.chmod(0o644)
    assert len(read(file, required=True)) == 1


@pytest.mark.skipif(not initial_root(), reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, mode=0o600)
    os.chown(file, 64010, 64010)

    assert _refused(file) == f"{file} belongs to user 64010 (mode 0600); it must belong to 0"


@pytest.mark.skipif(not initial_root(), reason="only root can give files away")
def test_another_user_reads_what_is_roots_and_what_is_its_own(tmp_path: Path) -> None:
    """And nothing else: neither of a third user, nor writable by root's friends."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o005 != 0o005:
            directory.chmod(0o755)
    file = _file(tmp_path)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mptcpd_dbus.config_file import read\n"
        "os.setgroups([])\n"
        "os.setgid(64001)\n"
        "os.setuid(64001)\n"
        "print(len(read(Path(sys.argv[1]), required=True)))\n"
    )

    def tried() -> str:
        argv = [sys.executable, "-c", code, str(file)]
        ran = subprocess.run(argv, check=False, capture_output=True, text=True)
        return ran.stdout.strip() or ran.stderr.splitlines()[-1]

    assert tried() == "1"
    for uid, gid, mode, words in (
        (64001, 64001, 0o660, "1"),
        (64001, 0, 0o660, "can be written by group 0 (mode 0660)"),
        (64010, 64001, 0o640, "belongs to user 64010 (mode 0640); it must belong to 0 or 64001"),
        (0, 64001, 0o660, "can be written by group 64001 (mode 0660)"),
        (0, 64001, 0o640, "1"),
        (0, 0, 0o600, f"{file} cannot be read: Permission denied"),
    ):
        os.chown(file, uid, gid)
        file.chmod(mode)
        assert words in tried()


def test_drop_ins_and_their_directory_are_held_to_the_same(tmp_path: Path) -> None:
    file = _file(tmp_path)
    drop_in = _file(tmp_path / "x.conf.d", "a.conf")
    assert len(read(file, required=True)) == 2

    drop_in.chmod(0o666)
    assert _refused(file).startswith(f"{drop_in} can be written by everybody (mode 0666)")

    drop_in.chmod(0o644)
    drop_in.parent.chmod(0o777)
    assert _refused(file).startswith(f"{drop_in.parent} can be written by everybody (mode 0777)")


def test_only_a_regular_file_is_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)

    assert _refused(folder) == f"{folder} is no regular file (mode drwxr-xr-x)"
    assert _refused(Path("/dev/null")).startswith("/dev/null is no regular file")


def test_a_file_in_place_of_the_drop_ins_directory_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path)
    in_its_place = _file(tmp_path, "x.conf.d")

    assert _refused(file) == f"{in_its_place} is no directory (mode -rw-r--r--)"
