"""A plugin beside the daemon, run by mptcpctl run-plugin."""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mptcpd_dbus.config import read_settings
from tests.e2e.ctl import argv
from tests.lab.bus import ADDRESS
from tests.lab.client import BusClient
from tests.lab.hosts import Host, Lab
from tests.lab.plugin_files import PluginFiles
from tests.lab.wait import eventually

PLUGIN = "org.mptcpd1.Plugin"


class PluginProgram:
    """The process that runs *file*; what it says goes to *log*."""

    def __init__(self, lab: Lab, host: Host, log: Path, file: Path, *options: str) -> None:
        self.name = file.stem
        self._argv = argv("run-plugin", "--bus", ADDRESS, *options, str(file))
        self._lab, self._host, self._log = lab, host, log
        self.process: subprocess.Popen[Any]

    async def start(self, viewer: BusClient) -> None:
        """Start it, and wait until it decides."""
        with self._log.open("ab") as log:
            self.process = self._lab.popen(self._host, self._argv, stderr=log)

        async def registered() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the program has ended:\n{self._log.read_text()}")
            objects = await viewer.managed_objects()
            shown = objects.get(f"/org/mptcpd1/plugin/{self.name}")
            return shown is not None and shown[PLUGIN]["State"] == "running"

        await eventually(registered, within=15)


def beside_the_daemon(
    lab: Lab, host: Host, log: Path, arguments: Sequence[str]
) -> tuple[PluginProgram, list[str]]:
    """Give the plugin that *arguments* load first as a program, and those of a daemon without."""
    settings = read_settings(arguments)
    assert settings.plugin_dir
    name, *others = settings.load_plugins or [
        file.stem for file in settings.plugin_dir.glob("*.py")
    ]
    options = [word for file in _config(arguments) for word in ("--config", file)]
    program = PluginProgram(lab, host, log, settings.plugin_dir / f"{name}.py", *options)
    files = PluginFiles()
    for other in others:
        files.write(other, (settings.plugin_dir / f"{other}.py").read_text())
    return program, ["--plugin-dir", str(files.path)]


def _config(arguments: Sequence[str]) -> Sequence[str]:
    at = arguments.index("--config") + 1 if "--config" in arguments else len(arguments)
    return arguments[at : at + 1]
