"""How each policy is doing, told in the log and on its object on the bus."""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import Callable

from mptcpd_dbus.core.errors import ConfigurationError
from mptcpd_dbus.core.readings import PolicyRead
from mptcpd_dbus.engine import Engine
from mptcpd_dbus.policy import snapshots
from mptcpd_dbus.policy.base import Plugin
from mptcpd_dbus.policy.fault import printable
from mptcpd_dbus.policy.hosted import Hosted
from mptcpd_dbus.policy.mailbox import HOST, QUEUE, Failure

_log = logging.getLogger(__name__)


class Reports:
    """Counts what goes wrong, and names it; what to do about it is the host's business.

    *named* tells the plugins that the configuration asks for by name.
    """

    def __init__(self, engine: Engine, named: Callable[[str], bool]) -> None:
        self._engine = engine
        self._named = named

    def failed(self, policy: Hosted, failure: Failure) -> None:
        """Tell of a handler that failed; what the kernel or a peer refused is no problem."""
        policy.errors += 1
        item = failure.item
        about = next((f" of {_name(a)}" for a in item.arguments if _name(a)), "")
        where = f"{item.handler}{about}"
        fields = item.about(policy.name)
        wrong = isinstance(failure.error, ConfigurationError)  # the administrator's, so they see it
        if not (failure.blame or wrong or item.handler == "start"):
            _log.debug("plugin %s, %s: %s", policy.name, where, failure.text, extra=fields)
        else:
            problem = f"{item.handler}: {failure.text}"
            trace = failure.error if failure.blame and policy.problem != problem else None
            words = f"plugin {policy.name}, {where}: {failure.text}"
            _log.error("%s", words, exc_info=trace, extra=fields)
            policy.problem = problem
        self.publish(policy)

    def behind(self, policy: Hosted, key: int) -> None:
        """Tell of a queue that was full."""
        policy.errors += 1
        policy.problem = f"{QUEUE} events waited for one handler and were dropped"
        then = "" if key == HOST else "; it does not decide for that connection any more"
        _log.error("plugin %s: %s%s", policy.name, policy.problem, then, extra=policy.fields)
        self.publish(policy)

    def blocked(self, policy: Hosted, handler: str, seconds: float) -> None:
        """Tell of a handler that held the loop."""
        policy.errors += 1
        policy.problem = f"{handler} blocked the daemon for {seconds:.1f} s"
        self.publish(policy)

    def publish(self, policy: Hosted) -> None:
        """Show everybody how it is."""
        kind = policy.kind
        mismatch = self._mismatch(policy)
        if mismatch and mismatch != policy.mismatch:
            # Who loads all that there are does not expect each to have work.
            level = logging.WARNING if self._named(policy.name) else logging.INFO
            _log.log(level, "plugin %s: %s", policy.name, mismatch, extra=policy.fields)
        policy.mismatch = mismatch
        description = printable(str(kind.__doc__ or "")) if kind is not Plugin else ""
        self._engine.take(
            PolicyRead(
                policy.name,
                description,
                printable(kind.version),
                policy.rank[0],
                kind.steers,
                policy.state,
                policy.problem or mismatch,
                policy.errors,
                policy.on_bus,
            )
        )

    def _mismatch(self, policy: Hosted) -> str:
        """Name the trap that a policy works with the path manager that the kernel does not use."""
        used = self._engine.state.settings.path_manager
        if not policy.running or not used or policy.steers(used):
            return ""
        return (
            f"it steers the {policy.kind.steers} path manager, but new connections get the {used}"
            " one: choose it (SetPathManager, kernel-path-manager), or use another plugin"
        )


def _name(argument: object) -> str:
    if isinstance(argument, snapshots.Connection):
        return f"connection {argument.token:08x}"
    return argument.name if isinstance(argument, snapshots.Interface) else ""
