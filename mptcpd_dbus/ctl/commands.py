"""The table of all commands of mptcpctl, in the words of ip-mptcp(8) where it has them.

Whatever has to know what commands there are reads this: the parser, the help, the man page, the
completion and the tests.
"""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.ctl.grammar import Argument, Command, Keyword, Kind, Option

_CONNECTION = Argument("CONNECTION", Kind.CONNECTION, "the connection")
_SUBFLOW = Argument("SUBFLOW", Kind.SUBFLOW, "the subflow")
_PLUGIN = Argument("NAME", Kind.PLUGIN, "the plugin")
_ENDPOINT_ID = Keyword("id", "the endpoint's ID", Kind.ID, "ID")
_FORCE = Keyword("force", "also what belongs to NetworkManager")
_ENDPOINT_ADDRESS = Argument("ADDRESS", Kind.ADDRESS, "the endpoint's address", optional=True)

GLOBAL_OPTIONS = (
    Option("--json", "print JSON, one object; monitor and top: one in each line", letter="-j"),
    Option("--bus", "system (the default), session, or a D-Bus address", Kind.BUS, "BUS"),
    Option("--no-ask-password", "never ask for authorisation, fail instead"),
    Option("--version", "print the version", letter="-V"),
    Option("--help", "print this, or the help of the command", letter="-h"),
)

COMMANDS = (
    Command(
        "status",
        "How the daemon and Multipath TCP on this host are doing (the default)",
        "status:status",
        options=(Option("--debug", "print all that a bug report needs, and wants no privilege"),),
    ),
    Command(
        "list",
        "List connections",
        "connections:list_connections",
        options=(
            Option("--interface", "with a subflow over it", Kind.INTERFACE, "IFNAME"),
            Option("--uid", "of this user, by number or name", Kind.USER, "USER"),
            Option("--address", "with it at either end of a subflow", Kind.ADDRESS, "ADDRESS"),
            Option("--port", "with it at either end of a subflow", Kind.PORT, "PORT"),
            Option(
                "--policy",
                "for which it decides; '' finds those that nobody decides for",
                Kind.PLUGIN,
                "NAME",
            ),
        ),
    ),
    Command(
        "show",
        "Show all of a connection: what it is, its subflows with statistics, its addresses",
        "connections:show_connection",
        (_CONNECTION,),
    ),
    Command(
        "monitor",
        "Print a line for every event, until interrupted",
        "monitor:monitor",
        more="The first line, DaemonRunning, says that from now on no event is missed. It goes on"
        " when the daemon is restarted, and says so.",
    ),
    Command(
        "top",
        "Watch what connections and subflows do, the busiest first, until q or Ctrl-C",
        "top:top",
        options=(
            Option(
                "--interval",
                "show it anew so often, 0.1 to 3600 (default: 1)",
                Kind.INTERVAL,
                "SECONDS",
                "-d",
            ),
            Option("--count", "end after so many times", Kind.COUNT, "N", "-n"),
            Option("--batch", "print plain text, as happens without a terminal", letter="-b"),
        ),
        more="Rates are bytes per second of the last interval, retransmits included. NEW are the"
        " segments sent again in it, RETRANS those since the beginning. VAR is how much round trips"
        " vary. BACKUP says who has asked for that: here, the peer, or both. It goes on when the"
        " daemon is restarted, and says so. Where there are thousands of connections, those that"
        " are shown are measured in each interval, and the others in turns: a busy one is found"
        " within minutes.",
    ),
    Command(
        "subflow add",
        "Add a subflow to a connection, and wait until both ends have accepted it",
        "paths:add",
        (
            _CONNECTION,
            Argument("REMOTE", Kind.ADDRESS, "where to (default: the peer's own)", optional=True),
            Argument("PORT", Kind.PORT, "its port (default: the peer's own)", optional=True),
        ),
        (
            Keyword("local", "from this address", Kind.ADDRESS, "ADDRESS"),
            Keyword("local-port", "from this port", Kind.PORT, "PORT"),
            Keyword("dev", "over this interface", Kind.INTERFACE, "IFNAME"),
            Keyword("backup", "use it only when no other is left"),
            Keyword(
                "timeout", "give up after so long, 1 to 20 (default: 10)", Kind.SECONDS, "SECONDS"
            ),
        ),
        more="Only for connections under the userspace path manager.",
    ),
    Command(
        "subflow delete",
        "Close a subflow; the connection goes on over the others",
        "paths:delete",
        (_SUBFLOW,),
        (
            Keyword(
                "announce", "withdraw its local address first: the peer leaves a dead path at once"
            ),
        ),
        more="Only for connections under the userspace path manager.",
    ),
    Command(
        "subflow backup",
        "Ask the peer to use a subflow only when no other is left, or like the others",
        "paths:backup",
        (_SUBFLOW, Argument("on|off", Kind.SWITCH, "whether it is a backup")),
        more="Only for connections under the userspace path manager.",
    ),
    Command(
        "address announce",
        "Announce a local address to the peer, and listen for its joins",
        "paths:announce",
        (_CONNECTION, Argument("ADDRESS", Kind.ADDRESS, "the address")),
        (
            Keyword("port", "announce this port", Kind.PORT, "PORT"),
            Keyword("id", "under this address ID", Kind.ID, "ID"),
        ),
        more="Only for connections under the userspace path manager.",
    ),
    Command(
        "address remove",
        "Withdraw a local address; the peer closes the subflows to it",
        "paths:remove",
        (_CONNECTION, Argument("ID", Kind.ID, "its address ID, see show")),
        more="Only for connections under the userspace path manager.",
    ),
    Command(
        "endpoint show",
        "List the endpoints of the in-kernel path manager",
        "endpoints:show",
        keywords=(_ENDPOINT_ID,),
    ),
    Command(
        "endpoint add",
        "Give the in-kernel path manager an address to work with",
        "endpoints:add",
        (Argument("ADDRESS", Kind.ADDRESS, "the address"),),
        (
            Keyword("dev", "bind its subflows to this interface", Kind.INTERFACE, "IFNAME"),
            Keyword("id", "its ID (default: the kernel chooses)", Kind.ID, "ID"),
            Keyword("port", "the port to announce, with signal", Kind.PORT, "PORT"),
            Keyword("signal", "announce it to the peer"),
            Keyword("subflow", "make subflows from it"),
            Keyword("backup", "and these are backups"),
            Keyword("fullmesh", "and they go to all addresses of the peer"),
            Keyword("laminar", "use it for subflows to announced addresses"),
        ),
    ),
    Command(
        "endpoint delete",
        "Delete an endpoint",
        "endpoints:delete",
        (_ENDPOINT_ADDRESS,),
        (_ENDPOINT_ID, _FORCE),
    ),
    Command(
        "endpoint change",
        "Change the flags of an endpoint",
        "endpoints:change",
        (_ENDPOINT_ADDRESS,),
        (
            _ENDPOINT_ID,
            Keyword("backup", "its subflows are backups"),
            Keyword("nobackup", "they are not"),
            Keyword("fullmesh", "they go to all addresses of the peer"),
            Keyword("nofullmesh", "they do not"),
            _FORCE,
        ),
    ),
    Command(
        "endpoint flush",
        "Delete all endpoints but NetworkManager's",
        "endpoints:flush",
        keywords=(Keyword("own", "only those that were added by the daemon"), _FORCE),
    ),
    Command("limits show", "Show the limits of the in-kernel path manager", "manager:show_limits"),
    Command(
        "limits set",
        "Set them, 0 to 8; what is not given stays",
        "manager:set_limits",
        keywords=(
            Keyword("subflows", "extra subflows of a connection", Kind.NUMBER, "N"),
            Keyword("add_addr_accepted", "announced addresses to accept", Kind.NUMBER, "N"),
        ),
    ),
    Command("plugin list", "List the plugins", "plugins:list_plugins"),
    Command("plugin show", "Show all of a plugin", "plugins:show", (_PLUGIN,)),
    Command(
        "plugin enable", "Let a plugin run, also after it has failed", "plugins:enable", (_PLUGIN,)
    ),
    Command(
        "plugin disable",
        "Stop a plugin; its connections pass to the next one in line",
        "plugins:disable",
        (_PLUGIN,),
    ),
    Command("plugin reload", "Load a plugin's file again", "plugins:reload", (_PLUGIN,)),
    Command(
        "path-manager",
        "Show or choose the kernel's path manager for connections to come",
        "manager:path_manager",
        (Argument("kernel|userspace", Kind.PATH_MANAGER, "the one to choose", optional=True),),
    ),
    Command(
        "owner",
        "Let a plugin decide for a connection",
        "connections:set_owner",
        (_CONNECTION, Argument("NAME", Kind.PLUGIN, "the plugin; '' lets nobody decide")),
    ),
    Command(
        "run-plugin",
        "Run a plugin's file as a program that decides for connections, until Ctrl-C",
        "run_plugin:run_plugin",
        (Argument("FILE", Kind.FILE, "the file; its name is the policy's"),),
        options=(
            Option(
                "--config", "the plugin's settings, as the daemon reads them", Kind.FILE, "FILE"
            ),
        ),
    ),
    Command("reload", "Have the daemon read its configuration again", "manager:reload"),
)
