"""From the text of a plugin's file to its class; what is wrong with it is said in one line."""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import difflib
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any

from mptcpd_dbus.policy.base import API_VERSION, Plugin, PluginSettings, coroutines_of
from mptcpd_dbus.policy.fault import one_line, printable
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.watch import IMPORT, Watch

_PACKAGE = "mptcpd_dbus_plugins"
_STEERS = ("kernel", "userspace", "both")


def load(name: str, source: bytes, watch: Watch) -> type[Plugin]:
    """Run *source* and give the one class in it that is a plugin; raise PluginProblem."""
    module = types.ModuleType(f"{_PACKAGE}.{name}")
    module.__file__ = f"{name}.py"
    watch.enter(name, IMPORT)
    sys.modules[module.__name__] = module  # dataclasses and pydantic look there
    try:
        exec(compile(source, f"{name}.py", "exec"), vars(module))  # noqa: S102 # that is loading
    except SyntaxError as error:
        raise PluginProblem(printable(f"line {error.lineno}: {error.msg}")) from error
    except BaseException as error:
        line = _line_of(error, f"{name}.py")
        raise PluginProblem(f"{line}{one_line(error)}") from error
    finally:
        watch.leave()
    found = {
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Plugin)
        and thing.__module__ == module.__name__
    }
    if len(found) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in found)) or "none"
        raise PluginProblem(f"one class derived from Plugin is wanted, found {names}")
    kind = found.pop()
    check(kind)
    return kind


def check(plugin: type[Plugin]) -> None:
    """Raise PluginProblem if *plugin* cannot mean what it says."""
    if not isinstance(plugin.requires_api, int) or not 1 <= plugin.requires_api <= API_VERSION:
        raise PluginProblem(
            f"it wants version {plugin.requires_api} of the plugin API; this daemon has"
            f" {API_VERSION}: update the daemon or the plugin"
        )
    if plugin.steers not in _STEERS:
        raise PluginProblem(f"steers = {plugin.steers!r} is none of {', '.join(_STEERS)}")
    if not isinstance(plugin.priority, int) or not -20 <= plugin.priority <= 19:
        raise PluginProblem(f"priority = {plugin.priority!r} is not between -20 and 19")
    if not isinstance(plugin.match, Match):
        raise PluginProblem(f"match = {plugin.match!r} is no Match")
    if not isinstance(plugin.version, str):
        raise PluginProblem(f"version = {plugin.version!r} is no text")
    ours = {kind for kind in plugin.__mro__ if issubclass(kind, Plugin) and _is_api(kind)}
    known = {name: wanted for kind in ours for name, wanted in coroutines_of(kind).items()}
    for kind in plugin.__mro__[: plugin.__mro__.index(Plugin)]:
        for name, member in vars(kind).items():
            if kind not in ours and (name in known or inspect.isfunction(member)):
                _check_member(name, member, known)


def _is_api(kind: type[Plugin]) -> bool:
    return kind.__module__.startswith(Plugin.__module__.rpartition(".")[0])


def _check_member(name: str, method: Any, known: Mapping[str, tuple[str, ...]]) -> None:
    coroutine = asyncio.iscoroutinefunction(method)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0.8 if coroutine else 0.9)
        if not name.startswith("_") and (coroutine or close):
            hint = f"; do you mean {close[0]}?" if close else " (helpers begin with _)"
            raise PluginProblem(f"{name} is no handler{hint}")
        return
    wanted = f"async def {name}({', '.join(('self', *known[name]))})"
    if not coroutine:
        raise PluginProblem(f"{name} must be a coroutine: {wanted}")
    try:
        inspect.signature(method).bind("self", *known[name])
    except TypeError as error:
        raise PluginProblem(f"{name} has a wrong parameter list: {wanted} is wanted") from error


def settings_of(plugin: type[Plugin]) -> type[PluginSettings]:
    """Give the model of a plugin's settings: what it declares `settings` to be."""
    for kind in plugin.__mro__:
        declared = vars(kind).get("__annotations__", {}).get("settings")
        if declared is None:
            continue
        if isinstance(declared, str):
            declared = getattr(sys.modules[kind.__module__], declared, None)
        if not isinstance(declared, type) or not issubclass(declared, PluginSettings):
            raise PluginProblem(f"settings is declared as {declared!r}, no PluginSettings")
        return declared
    return PluginSettings


def _line_of(error: BaseException, file: str) -> str:
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    return line
