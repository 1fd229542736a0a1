"""How the daemon is doing, in a line for its log and for `systemctl status`."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.core.policies import PolicyState
from mptcpd_dbus.core.state import State


def summary(state: State) -> str:
    """Say how many connections there are, and who decides for those to come."""
    count, path_manager = len(state.connections), state.settings.path_manager
    return (
        f"{count} connection{'s' * (count != 1)}; new ones get the {path_manager} path manager:"
        f" {_deciding(state, path_manager)}"
    )


def _deciding(state: State, path_manager: str) -> str:
    if path_manager == "kernel":
        count = len(state.endpoints)
        return f"the kernel decides, by {count} endpoint{'s' * (count != 1)}"
    running = (p for p in state.policies.values() if p.state is PolicyState.RUNNING)
    names = [p.name for p in running if p.steers in (path_manager, "both")]
    return f"decided by {', '.join(names)}" if names else "nobody decides, no plugin for it runs"
