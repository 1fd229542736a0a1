"""From the ID of a control group to its path, by which systemd names its units.

The ID that sock_diag tells is the inode number of the group's directory below the cgroup2 mount.
The kernel has no way back but a walk through all of them, hence what a walk found is kept.  Must
not know of connections.  Source: Documentation/admin-guide/cgroup-v2.rst, proc_pid_mountinfo(5).
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import re
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

MAX_GROUPS = 4096
SHARE = 10  # walks take at most this part of the time: 1,000 groups cost 28 ms
FORGET_AFTER = 60.0
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class ControlGroups:
    """The control groups below *root*, the cgroup2 mount; without one there are none.

    The tree is walked from the top down, and no further than MAX_GROUPS: a user who makes
    thousands of groups hides other deep ones, but no system service.
    """

    def __init__(self, root: Path | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._root = root or mount_point(_MOUNTS)
        self._now = now
        self._rest_until = 0.0
        self._paths: dict[int, tuple[str, ...]] = {}
        self._unknown: dict[int, float] = {}

    def path(self, identifier: int) -> tuple[str, ...]:
        """Give the names from the root down to the group; () for the root and for the unknown.

        A new group may cost a walk, but that at most a SHARE of the time, and once in FORGET_AFTER
        seconds for one that a walk did not find.
        """
        if identifier in self._paths or self._root is None:
            return self._paths.get(identifier, ())
        now = self._now()
        if now < self._rest_until:
            return ()
        if identifier in self._unknown and now - self._unknown[identifier] < FORGET_AFTER:
            return ()
        self._paths = _walk(self._root)
        after = self._now()
        self._rest_until = after + (SHARE - 1) * (after - now)
        if identifier not in self._paths:
            self._unknown[identifier] = now
            if len(self._unknown) > MAX_GROUPS:
                del self._unknown[next(iter(self._unknown))]
        return self._paths.get(identifier, ())


def mount_point(mounts: Path) -> Path | None:
    """Give the first place where cgroup2 is mounted, and not below another mount."""
    for line in mounts.read_text().splitlines():
        # ID, parent, device, root, mount point, options, any tags - type, source, options
        mount, _, filesystem = line.partition(" - ")
        _, _, device, _, place, *_ = mount.split()
        path = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), place))
        if filesystem.split()[0] == "cgroup2" and _device(path) == device:
            return path
    return None


def _device(path: Path) -> str:
    try:
        device = path.stat().st_dev
    except OSError:
        return ""
    return f"{os.major(device)}:{os.minor(device)}"


def _walk(root: Path) -> dict[int, tuple[str, ...]]:
    paths: dict[int, tuple[str, ...]] = {}
    waiting: deque[tuple[str, ...]] = deque([()])
    while waiting and len(paths) < MAX_GROUPS:
        above = waiting.popleft()
        try:
            with os.scandir(root.joinpath(*above)) as entries:
                directories = (e for e in entries if e.is_dir(follow_symlinks=False))
                below = [
                    (entry.inode(), (*above, entry.name))
                    for entry in islice(directories, MAX_GROUPS - len(paths))
                ]
        except OSError:  # it went meanwhile
            continue
        paths.update(below)
        waiting.extend(path for _, path in below)
    return paths
