"""The plugin directory: whether it can be trusted, which plugins are in it, and their text.

Whoever can write a plugin has the daemon's rights.  So nobody but root and the daemon's own user
may be able to write the files, the directory, or anything on the way to it; all of that is judged
on what was opened, by descriptor, so that nothing can be swapped between judgement and use.

Must not know what is in a plugin.  Source: path_resolution(7), openat(2), acl(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

import errno
import grp
import os
import pwd
import re
import stat
from contextlib import ExitStack
from pathlib import Path

from mptcpd_dbus.core.errors import ConfigurationError, MptcpdError

MAX_SIZE = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_]+")
_SUFFIX = ".py"
_ROOT = Path("/")
_MAX_LINKS = 40  # as path_resolution(7)
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A FIFO must not make us wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class PluginProblem(MptcpdError):
    """A plugin cannot be used; the text names the file and what to do about it."""


class PluginDirectory:
    """The directory *path* as it was found safe; to judge it again, make a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._directory = _open_safely(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"the plugin directory {path} cannot be opened: {reason};"
                " give plugin-dir a directory that this daemon can read"
            ) from error

    def names(self) -> list[str]:
        """Give the plugins in alphabetical order, also those that `read` will refuse."""
        return sorted(
            file.removesuffix(_SUFFIX)
            for file in os.listdir(self._directory)  # noqa: PTH208 - by descriptor
            if file.endswith(_SUFFIX) and not file.startswith(".")
        )

    def read(self, name: str) -> bytes:
        """Give the text of the plugin *name*."""
        if not _NAME.fullmatch(name):
            raise PluginProblem(
                f"{name!r} in {self.path} cannot name a plugin:"
                " call the file by letters, digits and underscores, then .py"
            )
        path = self.path / f"{name}{_SUFFIX}"
        try:
            with ExitStack() as opened:
                file = os.open(path.name, _READ, dir_fd=self._directory)
                opened.callback(os.close, file)
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise PluginProblem(_irregular(path))
                if fault := _fault(file, path):
                    raise PluginProblem(fault)
                return _text(file, path)
        except OSError as error:
            raise PluginProblem(_why_unreadable(error, path)) from error

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def _text(file: int, path: Path) -> bytes:
    with os.fdopen(file, "rb", closefd=False) as stream:
        text = stream.read(MAX_SIZE + 1)
    if len(text) > MAX_SIZE:
        raise PluginProblem(
            f"{path} is larger than the {MAX_SIZE} bytes that a plugin may have: shorten it"
        )
    return text


def _irregular(path: Path) -> str:
    return f"{path} is not a regular file: put the plugin itself there"


def _why_unreadable(error: OSError, path: Path) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no {path}: put the plugin there, or do not name it"
    if error.errno == errno.ELOOP:
        return f"{path} is a symbolic link: put the plugin itself there"
    if error.errno == errno.ENXIO:  # a socket
        return _irregular(path)
    return f"{path} cannot be read: {error.strerror}; let uid {os.geteuid()} read it"


def _open_safely(path: Path) -> int:
    """Walk to *path* step by step, judge every step on its descriptor, open the last for reading.

    Links are followed here and not by the kernel: one that a stranger left in /tmp is a fault,
    wherever it points, and so is an unsafe directory in which a link stands.
    """
    ahead = [*reversed(path.absolute().parts[1:])]
    links = 0
    with ExitStack() as opened:

        def step(name: str, above: int | None = None) -> int:
            descriptor = os.open(name, _STEP, dir_fd=above)
            opened.callback(os.close, descriptor)
            return descriptor

        def judge(descriptor: int, found: Path, *, parent: bool) -> None:
            if fault := _fault(descriptor, found, parent=parent):
                raise ConfigurationError(f"the plugin directory {path} is not safe: {fault}")

        here, at = _ROOT, step(str(_ROOT))
        while ahead:
            judge(at, here, parent=True)
            name = ahead.pop()
            below = here.parent if name == ".." else here / name
            entry = step(name, at)
            mode = os.fstat(entry).st_mode
            if stat.S_ISLNK(mode):
                judge(entry, below, parent=False)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = Path(os.readlink("", dir_fd=entry))
                if target.is_absolute():
                    here, at = _ROOT, step(str(_ROOT))
                ahead += [part for part in reversed(target.parts) if part != target.root]
            elif stat.S_ISDIR(mode):
                here, at = below, entry
            else:
                raise OSError(errno.ENOTDIR, f"{below} is not a directory")
        judge(at, here, parent=False)
        return os.open(".", _LIST, dir_fd=at)


def _fault(descriptor: int, path: Path, *, parent: bool = False) -> str:
    """Say who else could change what was opened as *path*, and how to end that; "" for nobody.

    In a *parent* that is sticky, others can add entries but not touch those of root and ours.
    """
    about = os.fstat(descriptor)
    mode = f"(mode {stat.S_IMODE(about.st_mode):04o})"
    # Whoever owns "/" rules the interpreter, too; in a user namespace it can be anybody's.
    if about.st_uid not in (0, os.geteuid()) and path != _ROOT:
        return (
            f"{path} is owned by {_user(about.st_uid)}, neither by root nor by uid {os.geteuid()}"
            f" {mode}: chown root {path}"
        )
    if stat.S_ISLNK(about.st_mode) or (
        parent and about.st_uid == 0 and about.st_mode & stat.S_ISVTX
    ):
        return ""
    if about.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everybody {mode}: chmod go-w {path}"
    if about.st_mode & stat.S_IWGRP:
        if about.st_gid != _own_group(about.st_uid):
            group = _group(about.st_gid)
            return f"{path} is writable by the group {group} {mode}: chmod g-w {path}"
        if _has_acl(descriptor):
            return f"{path} is writable by an access control list {mode}: setfacl -b {path}"
    return ""


def _has_acl(descriptor: int) -> bool:
    """Whether the mode's group bits are the mask of a list, which can name anybody (acl(5))."""
    try:
        os.getxattr(f"/proc/self/fd/{descriptor}", "system.posix_acl_access")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _own_group(uid: int) -> int | None:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"{gid}"
