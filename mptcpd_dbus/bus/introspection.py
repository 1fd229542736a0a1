"""Interfaces as introspection XML: the golden files in `dbus/` and the answer to Introspect.

Source: D-Bus specification, "Introspection Data Format"; GLib's annotation for documentation.
"""
# SPDX-License-Identifier: BSD-3-Clause

from collections.abc import Iterable, Sequence
from functools import cache

from mptcpd_dbus.bus.interface import Argument, Interface, Method, Property, Signal

_DOCTYPE = """\
<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
"""
_DOC = "org.gtk.GDBus.DocString"
_CHANGES = "org.freedesktop.DBus.Property.EmitsChangedSignal"

_PROPERTIES = """\
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
"""
_INTROSPECTABLE = """\
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
"""
_PEER = """\
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
"""
_OBJECT_MANAGER = """\
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
"""


def interface_xml(interface: Interface) -> str:
    """Return the text of the interface's golden file."""
    return f"{_DOCTYPE}<node>\n{_element(interface)}</node>\n"


def node_xml(
    interfaces: Sequence[Interface], children: Iterable[str], *, manages_objects: bool
) -> str:
    """Answer Introspect: a path without interfaces of ours has only what every path has."""
    parts = [_DOCTYPE, "<node>\n"]
    parts += [_element(interface) for interface in interfaces]
    if interfaces:
        parts.append(_PROPERTIES)
    if manages_objects:
        parts.append(_OBJECT_MANAGER)
    parts += [_INTROSPECTABLE, _PEER]
    parts += [f'  <node name="{name}"/>\n' for name in children]
    parts.append("</node>\n")
    return "".join(parts)


@cache
def _element(interface: Interface) -> str:
    lines = [f'  <interface name="{interface.name}">', _annotation(4, _DOC, interface.doc)]
    for method in interface.methods:
        lines += _method(method)
    for signal in interface.signals:
        lines += _signal(signal)
    for prop in interface.properties:
        lines += _property(prop)
    lines.append("  </interface>\n")
    return "\n".join(lines)


def _method(method: Method) -> list[str]:
    return [
        f'    <method name="{method.name}">',
        _annotation(6, _DOC, method.doc),
        *(_argument(argument, ' direction="in"') for argument in method.arguments),
        *(_argument(result, ' direction="out"') for result in method.results),
        "    </method>",
    ]


def _signal(signal: Signal) -> list[str]:
    return [
        f'    <signal name="{signal.name}">',
        _annotation(6, _DOC, signal.doc),
        *(_argument(argument) for argument in signal.arguments),
        "    </signal>",
    ]


def _property(prop: Property) -> list[str]:
    return [
        f'    <property name="{prop.name}" type="{prop.signature}" access="read">',
        _annotation(6, _DOC, prop.doc),
        _annotation(6, _CHANGES, prop.changes),
        "    </property>",
    ]


def _argument(argument: Argument, direction: str = "") -> str:
    return f'      <arg name="{argument.name}" type="{argument.signature}"{direction}/>'


def _annotation(indent: int, name: str, value: str) -> str:
    return f'{" " * indent}<annotation name="{name}" value="{_escaped(" ".join(value.split()))}"/>'


def _escaped(text: str) -> str:
    """Escape what may not stand in an attribute; the library for it imports one for HTTP."""
    for character, entity in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot")):
        text = text.replace(character, f"&{entity};")
    return text
