"""The plugin that a daemon's arguments name, run beside the daemon by mptcpctl run-plugin."""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mptcpd_dbus.config import read_settings
from tests.lab.bus import ADDRESS
from tests.lab.client import BusClient
from tests.lab.hosts import Host, Lab
from tests.lab.plugin_files import PluginFiles
from tests.lab.sandbox import readable_repository
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"


class PluginProgram:
    """A process that decides in the place of the one plugin that *arguments* have loaded."""

    def __init__(self, lab: Lab, host: Host, log: Path, arguments: Sequence[str]) -> None:
        settings = read_settings(arguments)
        self.name = settings.path_manager or (settings.load_plugins or ("",))[0]
        assert settings.plugin_dir
        words = list(arguments)
        config = words[words.index("--config") + 1 :][:1] if "--config" in words else []
        self._argv = [
            *(f"{readable_repository()}/.venv/bin/python", "-m", "mptcpd_dbus.ctl"),
            *("run-plugin", "--bus", ADDRESS, f"{settings.plugin_dir}/{self.name}.py"),
            *(word for file in config for word in ("--config", file)),
        ]
        self.daemons_arguments = ("--plugin-dir", str(PluginFiles().path))
        self._lab, self._host, self._log = lab, host, log
        self._process: subprocess.Popen[Any]

    async def start(self, viewer: BusClient) -> None:
        """Start it, and wait until it decides."""
        with self._log.open("ab") as log:
            self._process = self._lab.popen(
                self._host, self._argv, stderr=log, cwd=readable_repository()
            )

        async def registered() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"the program has ended:\n{self._log.read_text()}")
            objects = await viewer.managed_objects()
            shown = objects.get(f"/org/mptcpd1/plugin/{self.name}")
            return shown is not None and shown[PLUGIN]["State"] == "running"

        await eventually(registered, within=15)
