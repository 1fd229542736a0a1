"""What a plugin imports: the class to derive from, what its handlers get, and the errors.

A plugin is one file with one class derived from `Plugin`; the file's name is the plugin's name.
It may rely on this module and on nothing else of the daemon.  Within API version 1 handlers, fields
and parameters are only added.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.config_file import read_trusted
from mptcpd_dbus.core.errors import (
    ConfigurationError,
    InvalidArgument,
    KernelRefused,
    LimitReached,
    MptcpdError,
    NoSuchAddress,
    NoSuchConnection,
    NoSuchEndpoint,
    NoSuchSubflow,
    NotManageable,
    NotOurs,
    NotReady,
    SubflowFailed,
)
from mptcpd_dbus.policy.backoff import Backoff
from mptcpd_dbus.policy.base import (
    API_VERSION,
    Plugin,
    PluginSettings,
    Priority,
    Timer,
)
from mptcpd_dbus.policy.door import PathManager, Rule, WrongRule
from mptcpd_dbus.policy.match import Match
from mptcpd_dbus.policy.mender import InterfaceSettings, Mender
from mptcpd_dbus.policy.snapshots import (
    Address,
    Connection,
    Connections,
    Endpoint,
    Interface,
    Limits,
    Listener,
    Subflow,
)

__all__ = [
    "API_VERSION",
    "Address",
    "Backoff",
    "ConfigurationError",
    "Connection",
    "Connections",
    "Endpoint",
    "Interface",
    "InterfaceSettings",
    "InvalidArgument",
    "KernelRefused",
    "LimitReached",
    "Limits",
    "Listener",
    "Match",
    "Mender",
    "MptcpdError",
    "NoSuchAddress",
    "NoSuchConnection",
    "NoSuchEndpoint",
    "NoSuchSubflow",
    "NotManageable",
    "NotOurs",
    "NotReady",
    "PathManager",
    "Plugin",
    "PluginSettings",
    "Priority",
    "Rule",
    "Subflow",
    "SubflowFailed",
    "Timer",
    "WrongRule",
    "read_trusted",
]
