"""Every reader of foreign bytes bears so many executions of its fuzz target, the same each time.

`make fuzz` runs more of them, by chance.
"""
# SPDX-License-Identifier: BSD-3-Clause

from importlib import import_module

import pytest

from tests import figures
from tests.fuzz.fuzzing import TARGETS, fuzz, inputs, kept

EXECUTIONS = {  # in some 5 s each
    "events": 100_000,
    "messages": 100_000,
    "answers": 50_000,
    "rtnetlink": 20_000,
    "configuration": 5_000,
    "rules": 5_000,
    "notes": 5_000,
    "stream": 2_000,
}
LARGEST = 48  # inputs kept for a target; who adds more makes room


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_bears_so_many_executions(target: str) -> None:
    outcome = fuzz(target, EXECUTIONS[target])

    assert outcome.culprit is None, f"{outcome.culprit!r} broke it:\n{outcome.told}"
    assert outcome.executions >= EXECUTIONS[target]
    figures.tell(f"fuzzing {target}: {outcome.executions} executions")


@pytest.mark.parametrize("fault", ["error", "time", "memory"])
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", fault)

    outcome = fuzz("planted", 200_000)

    assert outcome.culprit is not None
    assert outcome.culprit.startswith(b"bad")


def test_without_a_fault_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAULT", raising=False)

    assert fuzz("planted", 200_000).culprit is None


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_is_little_and_new(target: str) -> None:
    assert len(kept(target)) <= LARGEST
    assert len(set(inputs(target))) == len(inputs(target))
    assert max(map(len, inputs(target))) <= import_module(f"tests.fuzz.{target}").LENGTH
