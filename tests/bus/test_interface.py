"""Declared interfaces: what is refused, and the XML that is printed of them."""
# SPDX-License-Identifier: BSD-3-Clause

import xml.etree.ElementTree as ET

import pytest
from dbus_next.introspection import Node

from mptcpd_dbus.bus.interface import (
    Argument,
    Call,
    Interface,
    Method,
    Property,
    Signal,
    args,
)
from mptcpd_dbus.bus.introspection import interface_xml, node_xml


async def _handler(target: object, call: Call, *arguments: object) -> None:
    del target, call, arguments


METHOD = Method("Do", args("s what", "a{sv} options"), args("o made"), _handler, "Does it.")
PROPERTY = Property("State", "s", str, 'How "far" it is <so far> & what else.', "const")
SIGNAL = Signal("Done", args("o made", "(qq) ports"), "It is done.")
INTERFACE = Interface(
    "org.mptcpd1.Test", "A test.\n\nWith two paragraphs.", (PROPERTY,), (METHOD,), (SIGNAL,)
)


def test_arguments_are_written_as_one_says_them() -> None:
    assert args("s name", "a{sv} options") == (Argument("name", "s"), Argument("options", "a{sv}"))
    assert (METHOD.signature, METHOD.result_signature) == ("sa{sv}", "o")
    assert SIGNAL.signature == "o(qq)"


def test_an_argument_or_property_has_exactly_one_type() -> None:
    for signature in ("", "ss", "a", "z"):
        with pytest.raises(ValueError, match=r"signature|complete type"):
            Argument("name", signature)
        with pytest.raises(ValueError, match=r"signature|complete type"):
            Property("Name", signature, str, "Documented.")


@pytest.mark.parametrize("doc", ["", "  \n "])
def test_what_is_not_documented_is_refused(doc: str) -> None:
    with pytest.raises(ValueError, match="not documented"):
        Interface("org.mptcpd1.Test", doc)
    with pytest.raises(ValueError, match=r"Test\.Done is not documented"):
        Interface("org.mptcpd1.Test", "Documented.", signals=(Signal("Done", (), doc),))
    with pytest.raises(ValueError, match=r"Test\.State is not documented"):
        Interface("org.mptcpd1.Test", "Documented.", (Property("State", "s", str, doc),))


def test_a_name_that_the_bus_refuses_or_that_is_there_twice_is_refused() -> None:
    for name in ("", "Test", "org.1.x", "org..x"):
        with pytest.raises(ValueError, match="not an interface name"):
            Interface(name, "Documented.")
    for signals in ((Signal("no-good", (), "Doc."),), (SIGNAL, SIGNAL)):
        with pytest.raises(ValueError, match="not a new member name"):
            Interface("org.mptcpd1.Test", "Documented.", signals=signals)


def test_the_printed_interface_says_all_that_was_declared() -> None:
    node = Node.parse(interface_xml(INTERFACE))

    (interface,) = node.interfaces
    (method,), (signal,), (prop,) = interface.methods, interface.signals, interface.properties
    assert (method.name, method.in_signature, method.out_signature) == ("Do", "sa{sv}", "o")
    assert [arg.name for arg in method.in_args + method.out_args] == ["what", "options", "made"]
    assert (signal.name, signal.signature) == ("Done", "o(qq)")
    assert (prop.name, prop.signature, prop.access.value) == ("State", "s", "read")


def test_documentation_and_change_signals_are_annotations() -> None:
    interface = ET.fromstring(interface_xml(INTERFACE)).find("interface")  # noqa: S314  our own
    assert interface is not None
    documented = {
        element.get("name"): {
            annotation.get("name", "").rpartition(".")[2]: annotation.get("value")
            for annotation in element.findall("annotation")
        }
        for element in (interface, *interface)
        if element.tag != "annotation"
    }

    assert documented == {
        "org.mptcpd1.Test": {"DocString": "A test. With two paragraphs."},
        "Do": {"DocString": "Does it."},
        "Done": {"DocString": "It is done."},
        "State": {
            "DocString": 'How "far" it is <so far> & what else.',
            "EmitsChangedSignal": "const",
        },
    }


def test_a_node_has_the_standard_interfaces_and_its_children() -> None:
    def names(xml: str) -> tuple[list[str], list[str]]:
        node = Node.parse(xml)
        return [i.name.rpartition(".")[2] for i in node.interfaces], [n.name for n in node.nodes]

    own = ["Test", "Properties", "ObjectManager", "Introspectable", "Peer"]
    assert names(node_xml([INTERFACE], ["a", "b"], manages_objects=True)) == (own, ["a", "b"])
    assert names(node_xml([], [], manages_objects=False)) == (["Introspectable", "Peer"], [])
