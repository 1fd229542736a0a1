"""One word per thing: events and signals, errors and their D-Bus names, tests and sentences."""
# SPDX-License-Identifier: BSD-3-Clause

import ast
import re
from pathlib import Path
from typing import get_args

from mptcpd_dbus.bus.error_names import ERROR_NAMES
from mptcpd_dbus.bus.names import ERROR_PREFIX
from mptcpd_dbus.bus.signals import SIGNALS, SIGNALS_DROPPED
from mptcpd_dbus.core import commands, errors, events, readings
from mptcpd_dbus.core.state import State
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.dispatch import HANDLER_OF

TESTS = Path(__file__).resolve().parent
WORDS_OF_A_SENTENCE = 3


def _classes(module: object) -> set[type]:
    return {
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and thing.__module__ == vars(module)["__name__"]
        and not thing.__name__.startswith("_")
        and thing is not events.AnyEvent  # which is all of them
    }


def test_every_class_of_an_event_a_reading_or_a_command_is_in_its_union() -> None:
    assert set(get_args(events.Event)) == _classes(events)
    assert set(get_args(commands.Command)) == _classes(commands)
    assert _classes(readings) - set(get_args(readings.Reading)) == {readings.ListenerRead}


def test_the_state_takes_every_event_and_every_reading() -> None:
    assert set(vars(State())["_apply"]) == _classes(events) | set(get_args(readings.Reading))


def test_every_event_has_a_signal_of_its_name_and_every_signal_an_event() -> None:
    assert {kind: signal.name for kind, (signal, _) in SIGNALS.items()} == {
        kind: kind.__name__ for kind in _classes(events)
    }


def test_the_one_signal_without_an_event_is_named_so() -> None:
    assert SIGNALS_DROPPED.name == "SignalsDropped"
    assert not hasattr(events, SIGNALS_DROPPED.name)


def test_every_event_has_a_handler_of_its_name_for_plugins() -> None:
    def spelt_as_a_function(name: str) -> str:
        return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()

    expected = {kind: spelt_as_a_function(kind.__name__) for kind in _classes(events)}
    assert expected == HANDLER_OF
    assert set(HANDLER_OF.values()) <= HANDLERS.keys()


def test_every_error_has_a_name_on_the_bus() -> None:
    assert set(ERROR_NAMES) == _classes(errors)


def test_an_error_of_ours_is_called_alike_in_python_and_on_the_bus() -> None:
    ours = {kind: name for kind, name in ERROR_NAMES.items() if name.startswith(ERROR_PREFIX)}

    assert ours
    assert all(name == ERROR_PREFIX + kind.__name__ for kind, name in ours.items())


def short_names(source: str) -> list[str]:
    """Give the names of tests in *source* that are no sentences."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test")
        and len(node.name.removeprefix("test_").split("_")) < WORDS_OF_A_SENTENCE
    ]


def test_the_name_of_every_test_is_a_sentence() -> None:
    files = list(TESTS.glob("**/test_*.py"))
    assert len(files) > 20

    found = {
        str(file.relative_to(TESTS)): names
        for file in files
        if (names := short_names(file.read_text()))
    }

    assert found == {}


def test_a_name_that_is_no_sentence_is_found() -> None:
    source = "def test_apply(): ...\nasync def test_apply_2(): ...\ndef test_a_row_is_read(): ..."

    assert short_names(source) == ["test_apply", "test_apply_2"]
