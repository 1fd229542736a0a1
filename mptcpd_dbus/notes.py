"""Small files by which the daemon tells the next one what no kernel remembers; see _kept().

Each belongs to one network namespace and is believed in nothing.  Must not know what is noted.
Source: RuntimeDirectory= in systemd.exec(5), namespaces(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
import os
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from mptcpd_dbus.core.errors import MptcpdError

MAX_SIZE = 1 << 16

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class Note(BaseModel):
    """What is noted, and for which network namespace."""

    model_config = ConfigDict(extra="forbid", strict=True)

    namespace: int


N = TypeVar("N", bound=Note)


def read(file: Path, kind: type[N], loss: str) -> N | None:
    """Give what was noted in *file* for this namespace; what cannot be used is logged as *loss*."""
    try:
        note = kind.model_validate_json(_text(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MptcpdError) as error:
        words = str(error).splitlines()[0]
        _log.warning("%s is not used, %s: %s", file, loss, words)
        return None
    return note if note.namespace == namespace() else None


def write(file: Path, note: Note) -> None:
    """Note it in *file*; raise OSError."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, _CREATE, 0o600), "w") as opened:
        opened.write(note.model_dump_json())
    fresh.replace(file)  # whoever reads finds the old note or the new one, whole


def namespace() -> int:
    """Give what tells this network namespace from others."""
    return Path("/proc/self/ns/net").stat().st_ino


def _text(file: Path) -> bytes:
    with os.fdopen(os.open(file, _READ), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("it is no regular file")
        text = opened.read(MAX_SIZE + 1)
    if len(text) > MAX_SIZE:
        raise ValueError(f"it has more than {MAX_SIZE} bytes")
    return text
