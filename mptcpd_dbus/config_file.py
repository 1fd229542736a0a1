"""Reads configuration files in the format of mptcpd.conf and keeps file and line of every value.

A file is lines of `[section]`, `key=value`, and comments that begin with # or ;.  Here is known
which sections and keys there are, and who may write such a file; not what a value means.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re
import reprlib
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mptcpd_dbus.core.errors import ConfigurationError

KEYS = {
    "core": (
        *("log", "plugin-dir", "path-manager", "addr-flags", "notify-flags", "load-plugins"),
        *("kernel-path-manager", "settle-time", "signal-budget"),
    ),
    "interfaces": ("allow", "deny"),
}
LARGEST = 1 << 20  # bytes of a file; nobody writes that much by hand

_PLUGIN = "plugin "
_PLUGIN_SECTION = re.compile(_PLUGIN + "[A-Za-z0-9_]+")
# No underscores: a key has one spelling, or one file could not replace what another says.
_PLUGIN_KEY = re.compile("[A-Za-z0-9-]+")

_short = reprlib.Repr()
_short.maxstring = 80


class Entry(NamedTuple):
    """A value, and as "FILE:LINE" where it stands."""

    section: str
    key: str
    value: str
    where: str


@dataclass(frozen=True)
class Section:
    """What the configuration says to a plugin."""

    plugin: str
    values: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """Give the "FILE:LINE" of a value, or the section's name where a key is missing."""
        return self.places.get(key, f"[{_PLUGIN}{self.plugin}]")


def quoted(text: str) -> str:
    """Quote foreign text for a message: on one line, and not too much of it."""
    return _short.repr(text)


def read(file: Path, *, required: bool) -> list[Entry]:
    """Read *file* and its drop-ins, FILE.d/*.conf in the order of their names."""
    entries = _entries(file, required=required)
    directory = file.with_name(file.name + ".d")
    for name in _drop_ins(directory):
        entries += _entries(directory / name, required=True)
    return entries


def read_trusted(file: Path) -> bytes:
    """Give the content of *file*, which root or we alone may write, and not much of it.

    Raise ConfigurationError, or FileNotFoundError where there is nothing.
    """
    with _opened(file, stat.S_IFREG) as descriptor, open(descriptor, "rb", closefd=False) as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConfigurationError(f"{file} is larger than {LARGEST} bytes")
    return content


def parse(content: bytes, file: str) -> list[Entry]:
    """Give the values in the order in which they stand, or say what the first wrong line is."""
    entries = []
    section = ""
    for number, raw in enumerate(content.split(b"\n"), 1):
        where = f"{file}:{number}"
        line = _decode(raw, where).strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = _section(line, where)
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ConfigurationError(
                f"{where}: {quoted(line)} is no key=value, no [section], and no comment (# or ;)"
            )
        if not section:
            raise ConfigurationError(
                f"{where}: {quoted(key)} stands in no section; write [core] above it"
            )
        _check_key(section, key, where)
        entries.append(Entry(section, key, value, where))
    return entries


def plugin_sections(entries: Iterable[Entry]) -> dict[str, Section]:
    """Gather what stands in sections [plugin NAME], by name; the last value of a key wins."""
    sections: dict[str, Section] = {}
    for entry in entries:
        if entry.section.startswith(_PLUGIN):
            name = entry.section.removeprefix(_PLUGIN)
            section = sections.setdefault(name, Section(name))
            section.values[entry.key] = entry.value
            section.places[entry.key] = entry.where
    return sections


def _decode(raw: bytes, where: str) -> str:
    try:
        line = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{where}: byte {error.start + 1} is not UTF-8; save the file in UTF-8"
        ) from None
    if "\0" in line:
        raise ConfigurationError(f"{where}: a NUL byte; a configuration file is text")
    return line


def _section(line: str, where: str) -> str:
    if not line.endswith("]"):
        raise ConfigurationError(f"{where}: {quoted(line)} has no ] at its end")
    name = " ".join(line[1:-1].split())
    if name not in KEYS and not _PLUGIN_SECTION.fullmatch(name):
        raise ConfigurationError(
            f"{where}: unknown section {quoted(name)}; there are"
            f" {', '.join(f'[{known}]' for known in KEYS)} and [plugin NAME],"
            " its NAME of letters, digits and _"
        )
    return name


def _check_key(section: str, key: str, where: str) -> None:
    if section in KEYS and key not in KEYS[section]:
        raise ConfigurationError(
            f"{where}: unknown key {quoted(key)}; [{section}] has {', '.join(KEYS[section])}"
        )
    if section not in KEYS and not _PLUGIN_KEY.fullmatch(key):
        raise ConfigurationError(
            f"{where}: {quoted(key)} cannot be a key; a key has letters, digits and -"
        )


def _entries(file: Path, *, required: bool) -> list[Entry]:
    try:
        return parse(read_trusted(file), str(file))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{file} does not exist") from None
        return []


def _drop_ins(directory: Path) -> list[str]:
    """Whoever may write the directory chooses what counts, so it is checked like a file."""
    try:
        with _opened(directory, stat.S_IFDIR) as descriptor:
            names = os.listdir(descriptor)  # noqa: PTH208 # pathlib takes no descriptor
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(".conf") and name[0] != ".")


@contextmanager
def _opened(path: Path, kind: int) -> Iterator[int]:
    """Open what root or we alone may write; FileNotFoundError where there is nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
        try:
            _check_writers(path, os.fstat(descriptor), kind)
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _check_writers(path: Path, found: os.stat_result, kind: int) -> None:
    own_groups = {os.geteuid(): os.getegid(), 0: 0}
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_IFMT(found.st_mode) != kind:
        wanted = "directory" if kind == stat.S_IFDIR else "regular file"
        raise ConfigurationError(f"{path} is no {wanted} (mode {stat.filemode(found.st_mode)})")
    if found.st_uid not in own_groups:
        raise ConfigurationError(
            f"{path} belongs to user {found.st_uid} (mode {mode:04o});"
            f" it must belong to {' or '.join(str(uid) for uid in sorted(own_groups))}"
        )
    if mode & stat.S_IWOTH:
        raise ConfigurationError(f"{path} can be written by everybody (mode {mode:04o}): chmod o-w")
    if mode & stat.S_IWGRP and found.st_gid != own_groups[found.st_uid]:
        raise ConfigurationError(
            f"{path} can be written by group {found.st_gid} (mode {mode:04o}): chmod g-w"
        )
