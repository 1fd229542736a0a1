"""The settings of the daemon, from the configuration files and the command line.

The command line wins key by key, and lists are replaced, never merged.  Each value is judged where
it stands, also one that another replaces: nothing wrong is passed over in silence.  Options, keys
and their values are those of mptcpd(8), so that its mptcpd.conf can be used as it is.
"""
# SPDX-License-Identifier: BSD-3-Clause

import argparse
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from mptcpd_dbus import __version__
from mptcpd_dbus.config_file import KEYS, Section, plugin_sections, quoted, read
from mptcpd_dbus.core.errors import ConfigurationError

FILE = Path("/etc/mptcpd-dbus/mptcpd-dbus.conf")
PLUGIN_DIR = "/usr/lib/mptcpd-dbus"
EX_USAGE = 64  # <sysexits.h>

AddrFlag = Literal["subflow", "signal", "backup", "fullmesh"]
NotifyFlag = Literal["existing", "skip_link_local", "skip_loopback", "check_route"]

_NAME = re.compile("[A-Za-z0-9_]+")
# A device's name has no white space, / or : in it, see dev_valid_name() of the kernel.
_GLOB = re.compile(r"(\[[^]\s/:]+\]|[^][\s/:])+")


def _split(text: object) -> object:
    if not isinstance(text, str):
        return text
    words = [word.strip() for word in text.split(",")] if text else []
    if "" in words:
        raise ValueError("a word is missing beside a comma")
    return tuple(dict.fromkeys(words))


def _none_if_empty(value: object) -> object:
    return value or None


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a name has letters, digits and _ only")
    return name


def _name_or_none(name: str) -> str:
    return _name(name) if name else name


def _bus(bus: str) -> str:
    if bus not in ("system", "session") and ":" not in bus:
        raise ValueError("give system, session, or a D-Bus address as unix:path=/run/bus")
    return bus


def _possible(flags: tuple[AddrFlag, ...]) -> tuple[AddrFlag, ...]:
    if {"signal", "fullmesh"} <= set(flags):
        raise ValueError("the kernel takes signal or fullmesh, not both")
    return flags


def _pattern(pattern: str) -> str:
    kind, colon, rest = pattern.partition(":")
    if kind == "prefix":
        ipaddress.ip_network(rest)  # its ValueError says what is wrong
    elif colon and kind not in ("name", "kind"):
        raise ValueError("give name:GLOB or GLOB, kind:GLOB, or prefix:ADDRESS/LENGTH")
    elif not _GLOB.fullmatch(rest if colon else pattern):
        raise ValueError("a glob has no white space, no / and no [ or ] alone")
    return pattern


Name = Annotated[str, AfterValidator(_name)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_split)]


class Settings(BaseModel):
    """Checked settings; `arguments` are those of the command line, to read all of it again.

    `places` has the "FILE:LINE" of what a file says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bus: Annotated[str, AfterValidator(_bus)] = "system"
    log: Literal["stderr", "syslog", "journal", "null"] = "stderr"
    debug: bool = False
    netlink_buffer: Annotated[int, Field(ge=4096, le=1 << 30)] = 64 << 20
    settle_time: Annotated[int, Field(ge=0, le=10_000)] = 100
    signal_budget: Annotated[int, Field(ge=0, le=1_000_000)] = 4000
    plugin_dir: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    path_manager: Annotated[str, AfterValidator(_name_or_none)] = ""
    addr_flags: Annotated[
        tuple[AddrFlag, ...], BeforeValidator(_split), AfterValidator(_possible)
    ] = ()
    notify_flags: Annotated[frozenset[NotifyFlag], BeforeValidator(_split)] = frozenset()
    load_plugins: Annotated[
        tuple[Name, ...] | None, BeforeValidator(_none_if_empty), BeforeValidator(_split)
    ] = None
    kernel_path_manager: Literal["", "userspace", "kernel"] = ""
    allow: Patterns = ()
    deny: Patterns = ()
    plugins: Mapping[str, Section] = {}
    places: Mapping[str, str] = {}
    arguments: tuple[str, ...] = ()

    def where(self, name: str) -> str:
        """Say where a setting stands, and what it is called there."""
        key = name.replace("_", "-")
        return f"{self.places[name]}: {key}" if name in self.places else f"--{key}"


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the command line and the files; ConfigurationError names file and line.

    What is wrong with *arguments* themselves ends the process with status 64; arguments that were
    read once can be read again.
    """
    given = _read_command_line(arguments)
    config = given.pop("config", None)
    entries = read(config or FILE, required=config is not None)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for _, key, text, where in (entry for entry in entries if entry.section in KEYS):
        name = key.replace("-", "_")
        try:
            values[name] = _judge(name, text)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {key}={quoted(text)}: {error}") from None
        places[name] = where
    plugins = plugin_sections(entries)
    places = {name: where for name, where in places.items() if name not in given}
    settings = Settings(
        **values | given, plugins=plugins, places=places, arguments=tuple(arguments)
    )
    if settings.plugin_dir:
        _check_language(settings.plugin_dir, settings.where("plugin_dir"))
    return settings


def _judge(name: str, value: object) -> object:
    """Give the value as its setting has it; the ValueError says what it should have been."""
    try:
        return getattr(Settings.model_validate({name: value}), name)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        words = first["msg"].removeprefix("Value error, ")
        # A longer location means that one word of a list is wrong.
        raise ValueError(
            f"{quoted(first['input'])}: {words}" if len(first["loc"]) > 1 else words
        ) from None


def _check_language(directory: Path, where: str) -> None:
    try:
        suffixes = {path.suffix for path in directory.iterdir()}
    except OSError:
        return  # whoever loads from there says why it cannot be done
    if ".so" in suffixes and ".py" not in suffixes:
        raise ConfigurationError(
            f"{where}={directory} has plugins of the C daemon (.so); those of this one are Python"
            f" files, by default in {PLUGIN_DIR}"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # it exits, as the base does
        self.exit(EX_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


class _ShowUsage(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.print_usage()
        parser.exit()


def _read_command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """Give the settings that stand there, and `config`."""
    parser = _parser()
    given: dict[str, Any] = {}
    for name, values in vars(parser.parse_args(arguments)).items():
        option = "--" + name.replace("_", "-")
        for value in values or ():
            if value == "" and name not in ("addr_flags", "notify_flags"):
                parser.error(f"{option} needs a value")
            try:
                given[name] = Path(value) if name == "config" else _judge(name, value)
            except ValueError as error:
                parser.error(f"{option}={quoted(value)}: {error}")
    return given


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "mptcpd-dbus",
        add_help=False,
        description="Multipath TCP path management on D-Bus: publishes every MPTCP connection of"
        " this network namespace on the bus and takes path-manager commands from it.",
        epilog="What is given here wins over the configuration file. Exit status: 0 clean stop,"
        " 64 usage, 69 MPTCP or the bus not available, 70 internal error, 78 configuration.",
    )

    def option(*names: str, metavar: str, words: str) -> None:
        # All values are kept, since each is judged; the last one wins.
        parser.add_argument(*names, metavar=metavar, help=words, action="append")

    option("--config", metavar="FILE", words=f"configuration file (default: {FILE})")
    option("--plugin-dir", metavar="DIR", words=f"where plugins are (default: {PLUGIN_DIR})")
    option(
        "--load-plugins",
        metavar="A,B",
        words="the plugins to load, in this order (default: all that are there)",
    )
    option("--path-manager", metavar="NAME", words="the default policy, by its name")
    option(
        "--addr-flags",
        metavar="F,..",
        words=f"flags of endpoints that plugins make: {', '.join(get_args(AddrFlag))}",
    )
    option(
        "--notify-flags",
        metavar="F,..",
        words=f"what plugins hear of addresses: {', '.join(get_args(NotifyFlag))}",
    )
    option(
        "--bus",
        metavar="BUS",
        words="where to be found: system (the default), session, or a D-Bus address",
    )
    option(
        "-l",
        "--log",
        metavar="WHERE",
        words="where to log: stderr (the default), syslog, journal or null",
    )
    option(
        "--netlink-buffer",
        metavar="BYTES",
        words="receive buffer for kernel events, 832 bytes each; the kernel doubles it"
        " (default: 67108864, room for 160,000 events)",
    )
    option(
        "--settle-time",
        metavar="MS",
        words="a connection is an object on the bus once it is so old (default: 100)",
    )
    option(
        "--signal-budget",
        metavar="N",
        words="the most signals in a second, then none until there are fewer; 0: no bound"
        " (default: 4000)",
    )
    parser.add_argument("-d", "--debug", action="append_const", const=True, help="log every event")
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("-?", "-h", "--help", action="help", help="show this and exit")
    parser.add_argument("--usage", action=_ShowUsage, nargs=0, help="show the usage and exit")
    return parser
