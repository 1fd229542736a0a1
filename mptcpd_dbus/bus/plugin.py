"""The interface org.mptcpd1.Plugin: a policy, be it a plugin of the daemon or a program on the bus.

The file of a plugin is nobody's business here: it is never shown.
"""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

from mptcpd_dbus.bus.interface import Call, Interface, Method, Property, args
from mptcpd_dbus.bus.names import MANAGE_PLUGINS, PLUGIN
from mptcpd_dbus.bus.options import NoOptions, read_options
from mptcpd_dbus.core.policies import Policy
from mptcpd_dbus.policy_protocol import Policies


def plugin_interface(policies: Policies) -> Interface:
    """Declare the interface; its commands go to *policies*."""

    async def enable(policy: Policy, _: Call, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        await policies.enable(policy.name)

    async def disable(policy: Policy, _: Call, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        await policies.disable(policy.name)

    async def reload(policy: Policy, _: Call, given: dict[str, Any]) -> None:
        read_options(NoOptions, given)
        await policies.reload(policy.name)

    return Interface(
        PLUGIN,
        "A policy: it decides for the connections that have its name as their Owner. It is a plugin"
        " of the daemon, or a program on the bus that works like one.",
        properties=(
            Property(
                "Name",
                "s",
                lambda p: p.name,
                "Its name. It ends the object path if it has only letters, digits and '_'; else"
                " the path ends in '_/' and the name, each byte that is no letter or digit written"
                " as '_' and two hexadecimal digits.",
                "const",
            ),
            Property(
                "Description", "s", lambda p: p.description, "What it does, in its own words."
            ),
            Property("Version", "s", lambda p: p.version, "Its version, in its own words."),
            Property(
                "Priority",
                "i",
                lambda p: p.priority,
                "Its place among those that want the same connection: the lowest number wins, as"
                " with nice(1).",
            ),
            Property(
                "Steers",
                "s",
                lambda p: p.steers,
                "Connections of which of the kernel's path managers it decides for: 'kernel',"
                " 'userspace' or 'both'.",
            ),
            Property(
                "State",
                "s",
                lambda p: p.state.value,
                "Whether it decides: 'loaded' (not started yet), 'running', 'disabled' (by"
                " Disable), or 'failed' (Problem says why). More words may come.",
            ),
            Property(
                "Problem",
                "s",
                lambda p: p.problem,
                "What is wrong and what to do about it, in one line, or ''. It may be running"
                " nevertheless.",
            ),
            Property(
                "Connections",
                "u",
                lambda p: p.connections,
                "For how many connections it decides.",
                "false",
            ),
            Property(
                "Errors",
                "t",
                lambda p: p.errors,
                "How many of its handlers failed or took too long; the log says which.",
                "false",
            ),
            Property(
                "OnBus",
                "s",
                lambda p: p.on_bus,
                "The unique bus name of the program, or '' for a plugin of the daemon.",
            ),
        ),
        methods=(
            Method(
                "Enable",
                args("a{sv} options"),
                (),
                enable,
                "Let it run, also after it has failed. It gets the connections to come and those"
                " that nobody decides for. A program on the bus registers instead. There are no"
                " options yet.",
                MANAGE_PLUGINS,
            ),
            Method(
                "Disable",
                args("a{sv} options"),
                (),
                disable,
                "Stop it; its connections pass to the next policy in line, if there is one. A"
                " program on the bus is told (Policy.Released), its object goes, and it may"
                " register again. There are no options yet.",
                MANAGE_PLUGINS,
            ),
            Method(
                "Reload",
                args("a{sv} options"),
                (),
                reload,
                "Load its file again and go on with that; it keeps its connections. Its settings"
                " are read again by Manager.Reload. There are no options yet.",
                MANAGE_PLUGINS,
            ),
        ),
    )
