"""One fault does not fill the log: it is told some times, and then counted."""
# SPDX-License-Identifier: BSD-3-Clause

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from mptcpd_dbus import repeats
from mptcpd_dbus.bus.error_names import on_the_bus
from mptcpd_dbus.log_fields import about
from mptcpd_dbus.repeats import KINDS, LINES, SECONDS, Repeats

_log = logging.getLogger("mptcpd_dbus.test")


class Log:
    """What is logged, and the clock of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limit = Repeats(lambda: self.now)
        self._text = io.StringIO()
        self.handler = logging.StreamHandler(self._text)
        self.handler.addFilter(self.limit)

    def take(self) -> str:
        """Give what was logged since the last time."""
        text = self._text.getvalue()
        self._text.truncate(0)
        self._text.seek(0)
        return text


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.INFO)
    log = Log()
    root = logging.getLogger()
    root.addHandler(log.handler)
    yield log
    root.removeHandler(log.handler)


def _internal_error(number: int) -> None:
    """Be a method with a fault, each time with another text."""
    try:
        raise KeyError(number)  # noqa: TRY301  # it is the place that counts
    except KeyError as error:
        on_the_bus(error)


def _failing_handler(number: int) -> None:
    """Be a plugin's handler that fails, each time in other words, and not in a row."""
    _log.error("plugin bad, new_connection of %08x: it failed", number, extra=about(plugin="bad"))


@pytest.mark.parametrize("fault", [_internal_error, _failing_handler])
def test_a_fault_that_happens_a_thousand_times_is_told_some_times_and_then_counted(
    log: Log, fault: Callable[[int], None]
) -> None:
    for number in range(1000):
        fault(number)
    said = log.take()
    assert said.count("internal error" if fault is _internal_error else "plugin bad") == LINES
    assert said.count("Traceback") == (LINES if fault is _internal_error else 0)

    log.now += SECONDS
    fault(0)
    assert f"(and {1000 - LINES} like it before)" in log.take()
    log.now += SECONDS
    fault(0)
    assert "like it" not in log.take()


def test_the_control_without_it_all_are_told(log: Log) -> None:
    log.handler.removeFilter(log.limit)
    for number in range(100):
        _internal_error(number)
    assert log.take().count("Traceback") == 100


def test_others_are_told_meanwhile(log: Log) -> None:
    """Another plugin by the same line, another fault by the same line, and what is no fault."""
    for number in range(100):
        _failing_handler(number)
        _internal_error(number)
    log.take()

    _log.info("a policy runs")
    for error in (ValueError("first"), OSError("second")):
        try:
            raise error
        except (ValueError, OSError) as raised:
            on_the_bus(raised)
    said = log.take()
    assert "a policy runs" in said
    assert said.count("Traceback") == 2


def test_no_more_kinds_are_remembered_than_there_is_room_for(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most() -> int:
        sizes = []
        for number in range(2 * KINDS):
            _log.error("%d", number, extra=about(plugin=str(number)))
            sizes.append(len(log.limit._seen))  # noqa: SLF001  it is what may not grow
        return max(sizes)

    assert most() == KINDS
    monkeypatch.setattr(repeats, "KINDS", 2 * KINDS)  # the control: there were more
    assert most() == 2 * KINDS
