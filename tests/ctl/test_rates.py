"""Rates are differences of bytes over the time that has really gone by."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.ctl.rates import Meter, Rates, total

COUNTERS = {
    "bytes_sent": 5_000,
    "bytes_received": 70,
    "total_retrans": 3,
    "rtt": 400,
    "rttvar": 20,
    "state": 1,
}


def _read(*readings: tuple[float, dict[str, int]]) -> Rates:
    meter = Meter(0.0)
    for at, counters in readings:
        meter.read(at, counters)
    return meter.rates


def test_one_reading_tells_what_is_and_no_rate() -> None:
    assert Meter(0.0).rates == Rates()
    assert _read((1.0, COUNTERS)) == Rates(total_retrans=3, rtt=400, rttvar=20)


@pytest.mark.parametrize(
    ("seconds", "sent", "received"), [(1.0, 3_000, 500), (0.5, 6_000, 1_000), (2.5, 1_200, 200)]
)
def test_a_rate_is_of_the_time_between_two_readings(
    seconds: float, sent: float, received: float
) -> None:
    later = COUNTERS | {"bytes_sent": 8_000, "bytes_received": 570, "total_retrans": 5, "rtt": 900}

    rates = _read((9.0, COUNTERS), (9.0 + seconds, later))

    assert rates == Rates(sent, received, 2, 5, 900, 20)


def test_each_reading_is_compared_with_the_one_before() -> None:
    later = COUNTERS | {"bytes_sent": 8_000}

    assert _read((1.0, COUNTERS), (2.0, later), (3.0, later)).sent == 0
    assert _read((1.0, COUNTERS), (3.0, later)).sent == 1_500


def test_what_an_older_kernel_does_not_tell_is_unknown_and_not_0() -> None:
    few = {"rtt": 400}

    assert _read((1.0, few), (2.0, few)) == Rates(rtt=400)
    assert _read((1.0, few), (2.0, COUNTERS)).sent is None


def test_no_time_and_counters_that_go_back_make_no_nonsense() -> None:
    assert _read((1.0, COUNTERS), (1.0, COUNTERS)).sent is None
    assert _read((1.0, COUNTERS), (2.0, COUNTERS | {"bytes_sent": 1})).sent == 0


def test_the_rates_of_subflows_add_up_and_their_round_trips_do_not() -> None:
    every = [Rates(10, None, 1, 5, 400, 20), Rates(2.5, None, 0, 1, 300, 10), Rates()]

    assert total(every) == Rates(12.5, None, 1, 6)
    assert total([]) == Rates()
