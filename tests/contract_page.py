"""The D-Bus contract as the man page org.mptcpd1(5); `tests/contract.py` writes it.

What the code knows is taken from the code; the rest of the text is here.  Source: man(7).
"""
# SPDX-License-Identifier: BSD-3-Clause

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence

from mptcpd_dbus.bus import error_names, names
from mptcpd_dbus.bus.interface import Argument, Interface, Method, Property, Signal
from mptcpd_dbus.bus.paths import address_path, connection_path, interface_path, subflow_path

_STANDARD_ERRORS = {
    error_names.ACCESS_DENIED: "polkit said no, or cannot be asked.",
    error_names.INTERACTIVE_AUTHORIZATION_REQUIRED: "polkit would ask for a password, but the call"
    " does not allow it (ALLOW_INTERACTIVE_AUTHORIZATION).",
    error_names.LIMITS_EXCEEDED: "Too many calls at a time or per second; wait for answers.",
    error_names.UNKNOWN_OBJECT: "There is no such object, or no more.",
    error_names.UNKNOWN_INTERFACE: "The object has no such interface.",
    error_names.UNKNOWN_METHOD: "The interface has no such method.",
    error_names.UNKNOWN_PROPERTY: "The interface has no such property.",
    error_names.PROPERTY_READ_ONLY: "No property can be set; the methods change things.",
    error_names.FAILED: "The configuration is wrong, or an internal error; the log has more.",
}
_OBJECTS = (
    (names.ROOT, "Manager", "the host, and org.freedesktop.DBus.ObjectManager"),
    (connection_path(17), "Connection", "a connection"),
    (subflow_path(17, 1), "Subflow", "one of its subflows"),
    (address_path(17, 2, remote=True), "Address", "an address that the peer announced"),
    (address_path(17, 1, remote=False), "Address", "an address of this host's on it"),
    (f"{names.ROOT}/endpoint/3", "Endpoint", "an endpoint of the in\\-kernel path manager"),
    (interface_path(2), "Interface", "a network interface, by its index"),
    (f"{names.ROOT}/plugin/sspi", "Plugin", "a policy, by its name"),
)
_ABOUT_PATHS = (
    "The numbers of connections and subflows mean nothing and are never used again, unlike tokens."
    f" All signals come from '{names.ROOT}', and InterfacesAdded comes before the signals that name"
    " an object. In place of an object that is not there stands '/'."
)
_LIMITS = (
    f"A call may have {names.CALL_BYTES} bytes. A program may make {names.NAME_RATE} calls a second"
    f" and a user {names.UID_RATE}, those that cost much count more; of their calls"
    f" {names.NAME_CALLS} and {names.UID_CALLS} may be at work at a time. Root may more. A user may"
    f" register {names.UID_POLICIES} policies, all together {names.POLICIES}. When the bus does not"
    f" take signals as fast as they come, {names.QUEUE_BYTES >> 20} MiB may wait, then signals are"
    " dropped and SignalsDropped follows."
)
_HEAD = r"""
.\" Made from the code; see CONTRIBUTING.md.
.\" SPDX-License-Identifier: BSD-3-Clause
.TH ORG.MPTCPD1 5 2026-11-22 mptcpd-dbus "D-Bus Interfaces"
.nh
.nr HY 0
.ad l
.SH NAME
org.mptcpd1 \- the D-Bus interfaces of mptcpd-dbus
.SH DESCRIPTION
.BR mptcpd\-dbus (8)
owns the name
.B org.mptcpd1
on the system bus and publishes there what there is of Multipath TCP on the
host.
Everybody may read and follow.
A method that commands names the action of
.BR polkit (8)
that its caller needs, root excepted, and answers with the kernel's real result.
.PP
Addresses are strings; those of IPv4 that are mapped into IPv6 are shown as
IPv4.
.I Local
is always this host.
Options are dictionaries; one that is not known is an error.
Members, options and words are only added: what is here stays.
.PP
A client that wants to know all calls
.B GetManagedObjects
of
.B org.freedesktop.DBus.ObjectManager
once, and follows the signals.
It reads anew after
.B SignalsDropped
and when the name has a new owner.
""".lstrip()
_EXAMPLES = r"""
What there is:
.PP
.EX
$ busctl tree org.mptcpd1
$ busctl introspect org.mptcpd1 /org/mptcpd1/connection/1
.EE
.PP
A second path for a connection over the interface
.BR link2 ,
and its end:
.PP
.EX
$ busctl call org.mptcpd1 /org/mptcpd1/connection/1 \e
    org.mptcpd1.Connection CreateSubflow \(aqsqa{sv}\(aq "" 0 1 Interface s link2
$ busctl call org.mptcpd1 /org/mptcpd1/connection/1/subflow/2 \e
    org.mptcpd1.Subflow Destroy \(aqa{sv}\(aq 1 Announce b true
.EE
.PP
The README of mptcpd\-dbus has an example of every method.
""".lstrip()
_SEE_ALSO = """\
.BR mptcpctl (1),
.BR busctl (1),
.BR gdbus (1),
.BR mptcpd\\-dbus\\-plugin (7),
.BR mptcpd\\-dbus (8),
.BR ip\\-mptcp (8)
"""


def page(interfaces: Sequence[Interface]) -> str:
    """Give the source of the page."""
    objects = "".join(
        _entry(f".B {_escaped(path)}", f".BR {names.INTERFACE_PREFIX}{name} :\n{words}.\n")
        for path, name, words in _OBJECTS
    )
    parts = [_HEAD, ".SH OBJECTS\n", objects, ".PP\n", _filled(_ABOUT_PATHS)]
    for interface in interfaces:
        parts.append(f".SH INTERFACE {interface.name}\n{_filled(interface.doc)}")
        for title, members in (
            ("Methods", map(_method, interface.methods)),
            ("Signals", map(_signal, interface.signals)),
            ("Properties", map(_property, interface.properties)),
        ):
            told = "".join(members)
            parts.append(f".SS {title}\n{told}" if told else "")
    parts += [".SH ERRORS\n", *_errors(), ".SH LIMITS\n", _filled(_LIMITS)]
    parts += [".SH EXAMPLES\n", _EXAMPLES, ".SH SEE ALSO\n", _SEE_ALSO]
    return "".join(parts)


def _errors() -> Iterable[str]:
    for kind, name in error_names.ERROR_NAMES.items():
        if name != error_names.FAILED:
            yield _entry(f".B {name}", _filled(inspect.getdoc(kind) or ""))
    for name, words in _STANDARD_ERRORS.items():
        yield _entry(f".B {name}", _filled(words))


def _method(method: Method) -> str:
    results = f" \\(-> {_arguments(method.results)}" if method.results else ""
    called = _broken(f"({_arguments(method.arguments)}){results}")
    action = _filled(f"Action: '{method.action}'.") if method.action else ""
    return _entry(f".B {method.name}", f"{called}.br\n{_filled(method.doc)}{action}")


def _signal(signal: Signal) -> str:
    told = _broken(f"({_arguments(signal.arguments)})")
    return _entry(f".B {signal.name}", f"{told}.br\n{_filled(signal.doc)}")


_CHANGES = {"true": "", "const": ", never changes", "false": ", changes without a signal"}


def _property(prop: Property) -> str:
    tag = f'.BR {prop.name} " ({prop.signature}{_CHANGES[prop.changes]})"'
    return _entry(tag, _filled(prop.doc))


def _arguments(arguments: Sequence[Argument]) -> str:
    return ", ".join(f"{its.signature} \\fI{its.name}\\fR" for its in arguments)


def _entry(tag: str, body: str) -> str:
    return f".TP\n{tag}\n{body}"


def _filled(text: str) -> str:
    """Give *text* in lines of the source: each sentence begins a line, quoted words are bold."""
    escaped = re.sub(r"(?<!\w)'([^']+)'(?!\w)", r"\\fB\1\\fR", _escaped(" ".join(text.split())))
    sentences = re.split(r"(?<=[.:]) (?=[A-Z'\\])", escaped.replace("''", r"\(aq\(aq"))
    return "".join(map(_broken, sentences))


def _broken(line: str) -> str:
    lines = textwrap.wrap(line, 78, break_long_words=False, break_on_hyphens=False)
    return "".join(f"\\&{line}\n" if line[0] in ".'" else f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
