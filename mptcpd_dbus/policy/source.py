"""Where plugins come from: the directory that the settings name, or nowhere."""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

from mptcpd_dbus.config import PLUGIN_DIR, Settings
from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.policy.base import Plugin
from mptcpd_dbus.policy.files import PluginDirectory, PluginProblem
from mptcpd_dbus.policy.loader import load
from mptcpd_dbus.policy.watch import Watch


class Source:
    """The plugins of a directory; without one, none."""

    def __init__(self, path: Path, watch: Watch, *, wanted: bool) -> None:
        self._path = path
        self._watch = watch
        # Nobody has to have the directory that nobody has named.
        self._directory = PluginDirectory(path) if wanted or path.exists() else None

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> list[str]:
        """Name all that there are, also those that cannot be loaded."""
        return self._directory.names() if self._directory else []

    def load(self, name: str) -> type[Plugin]:
        """Give the class of one; raise PluginProblem, which does not name the directory."""
        if self._directory is None:
            raise PluginProblem(f"there is no {name}.py")
        try:
            return load(name, self._directory.read(name), self._watch)
        except PluginProblem as problem:
            # Everybody may read it on the bus.
            text = str(problem).replace(f"{self._path}/", "").replace(f" in {self._path}", "")
            raise PluginProblem(text) from problem

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory is not None:
            self._directory.close()


def open_source(settings: Settings, watch: Watch) -> Source:
    """Open the directory of *settings*; raise ConfigurationError if it cannot be trusted."""
    path = settings.plugin_dir or Path(PLUGIN_DIR)
    try:
        return Source(path, watch, wanted=settings.plugin_dir is not None)
    except ConfigurationError as error:
        raise ConfigurationError(f"{settings.where('plugin_dir')}: {error}") from None
