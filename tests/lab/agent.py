"""Answers polkit's questions for one process, without a password: run by root, which may do that.

    agent.py PID USER approve|deny|hang

USER is who owns the process's bus connection; bob, an administrator, is who approves.  A line on
standard output tells of each step.  See the documentation of
org.freedesktop.PolicyKit1.AuthenticationAgent; it knows nothing of ours.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
import sys
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

PATH = "/lab/agent"
AUTHORITY = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
INTERFACE = """
<node><interface name="org.freedesktop.PolicyKit1.AuthenticationAgent">
  <method name="BeginAuthentication">
    <arg type="s"/><arg type="s"/><arg type="s"/><arg type="a{ss}"/><arg type="s"/>
    <arg type="a(sa{sv})"/>
  </method>
  <method name="CancelAuthentication"><arg type="s"/></method>
</interface></node>
"""


class Agent:
    """What polkit calls."""

    def __init__(self, pid: int, user: str, answer: str) -> None:
        self.uid = pwd.getpwnam(user).pw_uid
        self.answer = answer
        self.waiting: dict[str, Any] = {}
        self.bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
        interface = Gio.DBusNodeInfo.new_for_xml(INTERFACE).interfaces[0]
        self.bus.register_object(PATH, interface, self.called, None, None)
        # proc(5): field 22, and the second, a name, may hold anything up to the last parenthesis
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        process = {
            "pid": GLib.Variant("u", pid),
            "start-time": GLib.Variant("t", started),
            "uid": GLib.Variant("i", self.uid),
        }
        subject = ("unix-process", process)
        self.ask("RegisterAuthenticationAgent", "((sa{sv})ss)", (subject, "C", PATH))
        say("registered")

    def called(self, *call: Any) -> None:
        """Handle a call: connection, sender, path, interface, member, arguments, invocation."""
        member, arguments, invocation = call[4], call[5].unpack(), call[6]
        if member == "CancelAuthentication":
            cancelled = self.waiting.pop(arguments[0], None)
            if cancelled:
                refuse(cancelled, "Cancelled")
            invocation.return_value(None)
            say("cancelled")
            return
        action, message, _icon, details, cookie, _identities = arguments
        say(f"asked {action} {message!r} {details}")
        if self.answer == "hang":
            self.waiting[cookie] = invocation
        elif self.answer == "deny":
            refuse(invocation, "Failed")
        else:
            self.approve(cookie)
            invocation.return_value(None)

    def approve(self, cookie: str) -> None:
        """Say that bob has proved who he is."""
        bob = ("unix-user", {"uid": GLib.Variant("u", pwd.getpwnam("bob").pw_uid)})
        try:  # polkit 126 files the session under the subject's uid, older ones under the agent's
            self.ask("AuthenticationAgentResponse2", "(us(sa{sv}))", (self.uid, cookie, bob))
        except GLib.Error:
            self.ask("AuthenticationAgentResponse2", "(us(sa{sv}))", (0, cookie, bob))

    def ask(self, member: str, signature: str, arguments: tuple[Any, ...]) -> None:
        """Call the authority."""
        body = GLib.Variant(signature, arguments)
        self.bus.call_sync(*AUTHORITY, member, body, None, Gio.DBusCallFlags.NONE, -1, None)


def refuse(invocation: Any, error: str) -> None:
    """Answer a question with a refusal."""
    invocation.return_dbus_error(f"org.freedesktop.PolicyKit1.Error.{error}", "no")


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    agent = Agent(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    GLib.MainLoop().run()
