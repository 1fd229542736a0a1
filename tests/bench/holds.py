"""How long our daemon's loop was held at a time, seen from inside by a plugin of the benchmarks'.

A hold lasts from when the loop has learnt what there is to do until it asks the next time, be it
that the process was at work or had no processor.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
import pwd
import struct

from tests.lab import users
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import initial_root

LONGEST = struct.Struct("=d")  # seconds
PLUGIN = """
    import asyncio
    import mmap
    import struct
    import time
    from pathlib import Path

    from mptcpd_dbus.plugin import Plugin

    LONGEST = struct.Struct("=d")


    class Holds(Plugin):
        '''Writes down the longest hold of the loop'''

        async def start(self):
            selector = asyncio.get_running_loop()._selector
            ask, learnt = selector.select, time.monotonic()
            with Path("{file}").open("r+b") as file:
                longest = mmap.mmap(file.fileno(), LONGEST.size)

            def select(timeout=None):
                nonlocal learnt
                held = time.monotonic() - learnt
                if held > LONGEST.unpack_from(longest)[0]:
                    LONGEST.pack_into(longest, 0, held)
                found = ask(timeout)
                learnt = time.monotonic()
                return found

            selector.select = select
"""


class Holds:
    """The plugin's file."""

    def __init__(self, plugins: PluginFiles) -> None:
        self._file = plugins.path / "longest"
        self._file.write_bytes(bytes(LONGEST.size))
        if initial_root():
            user = pwd.getpwnam(users.DAEMON)
            os.chown(self._file, user.pw_uid, user.pw_gid)
        plugins.write("holds", PLUGIN.format(file=self._file))

    def longest(self) -> float:
        """Give the longest hold since this was asked the last time, in seconds."""
        with self._file.open("r+b") as file:
            (longest,) = LONGEST.unpack(file.read())
            assert longest, "the plugin does not look"
            file.seek(0)
            file.write(bytes(LONGEST.size))
        return float(longest)
