"""From text to a plugin's class: what is wrong is said in one line that says where."""
# SPDX-License-Identifier: BSD-3-Clause

import sys
import textwrap

import pytest

from mptcpd_dbus.plugin import Plugin, PluginSettings
from mptcpd_dbus.policy.base import HANDLERS
from mptcpd_dbus.policy.files import PluginProblem
from mptcpd_dbus.policy.loader import load, settings_of
from mptcpd_dbus.policy.watch import Watch

START = "from mptcpd_dbus.plugin import *\nimport mptcpd_dbus.plugin as api\n"
KIND = START + "class It(Plugin):\n"


def _load(text: str, name: str = "it") -> type[Plugin]:
    return load(name, textwrap.dedent(text).encode(), Watch())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "one class derived from Plugin is wanted, found none"),
        (START, "one class derived from Plugin is wanted, found none"),  # Plugin itself is not
        (START + "class A(Plugin): pass\nclass B(Plugin): pass", "found A, B"),
        ("x = (\n", "line 1: '(' was never closed"),
        ("def f(:\n", "line 1: invalid syntax"),
        ("\n\nimport nowhere_to_be_found", "line 3: ModuleNotFoundError: No module named"),
        ("\n1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('I leave')", "line 2: SystemExit: I leave"),
        ("raise KeyboardInterrupt", "line 1: KeyboardInterrupt"),
        ("raise BaseException('a\\nb')", "line 1: BaseException: a"),
        ("x = '\0'", "source code string cannot contain null bytes"),
        ("x = '\\udcff'; raise ValueError(x)", "line 1: ValueError: ?"),
        (KIND + "  requires_api = 2", "it wants version 2 of the plugin API; this daemon has 1"),
        (KIND + "  requires_api = 0", "it wants version 0"),
        (KIND + "  requires_api = '1'", "it wants version 1"),
        (KIND + "  steers = 'all'", "steers = 'all' is none of kernel, userspace, both"),
        (KIND + "  priority = 20", "priority = 20 is not between -20 and 19"),
        (KIND + "  priority = 'high'", "priority = 'high' is not between"),
        (KIND + "  match = 443", "match = 443 is no Match"),
        (KIND + "  version = 1", "version = 1 is no text"),
        (
            KIND + "  async def new_conection(self, connection): pass",
            "new_conection is no handler; do you mean new_connection?",
        ),
        (
            KIND + "  async def helper(self): pass",
            "helper is no handler (helpers begin with _)",
        ),
        (
            KIND + "  def new_subflows(self, connection, subflow): pass",
            "new_subflows is no handler; do you mean new_subflow?",
        ),
        (
            KIND + "  def new_connection(self, connection): pass",
            "new_connection must be a coroutine: async def new_connection(self, connection)",
        ),
        (
            KIND + "  async def start(self): yield",
            "start must be a coroutine: async def start(self)",
        ),
        (KIND + "  start = None", "start must be a coroutine"),
        (
            KIND + "  async def new_connection(self): pass",
            "new_connection has a wrong parameter list: async def new_connection(self, connection)",
        ),
        (
            KIND + "  async def ready(self, more): pass",
            "ready has a wrong parameter list: async def ready(self) is wanted",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, words: str) -> None:
    with pytest.raises(PluginProblem) as caught:
        load("it", text.encode(), Watch())

    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_base_class_from_elsewhere_is_checked_as_well() -> None:
    text = """
        from tests.policy.test_loader import Misspelt
        class It(Misspelt): pass
    """
    with pytest.raises(PluginProblem, match="new_conection is no handler"):
        _load(text)


class Misspelt(Plugin):
    """Cannot be used."""

    async def new_conection(self, connection: object) -> None:
        """Be called by nobody."""


def test_what_is_right_is_loaded() -> None:
    kind = _load(
        """
        from __future__ import annotations
        from mptcpd_dbus.plugin import Plugin, PluginSettings
        class Own(PluginSettings):
            paths: int = 2
        class It(Plugin):
            '''Does nothing'''
            settings: Own
            async def new_connection(self, connection, *more): ...
            async def connection_closed(self, conn): ...
            async def _helper(self): ...
            def compute(self): ...
        Also = It
        """
    )

    assert kind.__name__ == "It"
    assert kind.__module__ in sys.modules
    assert settings_of(kind).model_validate({"paths": "3"}).model_dump() == {"paths": 3}


def test_the_settings_of_a_base_class_are_inherited_and_others_refused() -> None:
    both = (
        START + "class S(PluginSettings):\n  a: int = 1\n" + "class It(Plugin):\n  settings: {}\n"
    )
    kind = load("it", both.format("S").encode(), Watch())
    wrong = load("other", both.format("int").encode(), Watch())

    assert settings_of(type("Derived", (kind,), {})) is settings_of(kind)
    assert settings_of(Plugin) is PluginSettings
    with pytest.raises(PluginProblem, match="no PluginSettings"):
        settings_of(wrong)


def test_each_handler_has_a_sentence_and_its_parameters() -> None:
    assert HANDLERS["new_address"] == ("connection", "address")
    assert HANDLERS["start"] == ()
    assert all((getattr(Plugin, name).__doc__ or "").endswith(".") for name in HANDLERS)
