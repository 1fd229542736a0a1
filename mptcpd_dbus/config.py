"""The settings of the daemon, from the command line."""
# SPDX-License-Identifier: BSD-3-Clause

import argparse
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mptcpd_dbus import __version__

EX_USAGE = 64  # <sysexits.h>


class Settings(BaseModel):
    """Checked settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bus: str = "system"
    log: Literal["stderr", "syslog", "journal", "null"] = "stderr"
    debug: bool = False
    netlink_buffer: Annotated[int, Field(ge=4096, le=1 << 30)] = 64 << 20

    @field_validator("bus")
    @classmethod
    def _names_a_bus(cls, bus: str) -> str:
        if bus not in ("system", "session") and ":" not in bus:
            raise ValueError("give system, session, or a D-Bus address as unix:path=/run/bus")
        return bus


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # it exits, as the base does
        self.exit(EX_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def read_command_line(arguments: Sequence[str]) -> Settings:
    """Read *arguments*; exit with status 64 and a word about what is wrong."""
    parser = _Parser(
        "mptcpd-dbus",
        description="Multipath TCP path management on D-Bus: publishes every MPTCP connection of"
        " this network namespace on the bus and takes path-manager commands from it.",
        epilog="Exit status: 0 clean stop, 64 usage, 69 MPTCP or the bus not available, 70"
        " internal error.",
    )
    parser.add_argument(
        "--bus",
        metavar="BUS",
        help="where to be found: system (the default), session, or a D-Bus address",
    )
    parser.add_argument(
        "-l",
        "--log",
        metavar="WHERE",
        help="where to log: stderr (the default), syslog, journal or null",
    )
    parser.add_argument("-d", "--debug", action="store_true", help="log every event")
    parser.add_argument(
        "--netlink-buffer",
        metavar="BYTES",
        help="receive buffer for kernel events, 832 bytes each; the kernel doubles it"
        " (default: 67108864, room for 160,000 events)",
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    given = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        parser.error(f"{option}={first['input']}: {first['msg'].removeprefix('Value error, ')}")
        raise AssertionError from None  # error() has exited
