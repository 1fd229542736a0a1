"""From the kernel's event to a policy's command on the wire, as packets show it."""
# SPDX-License-Identifier: BSD-3-Clause

from statistics import median

from tests.bench.latency import POLICY, joining, latencies, told
from tests.e2e.conftest import MakeStage
from tests.e2e.stage import Stage
from tests.lab.plugin_files import PluginFiles

LIMIT = 0.001
ROUNDS = 3


async def test_a_lone_connection_is_acted_upon_within_a_millisecond(stage: MakeStage) -> None:
    it = await stage("--plugin-dir", str(joining().path))

    assert await _best(it) < LIMIT


async def test_a_policy_that_dawdles_shows(stage: MakeStage) -> None:
    """The control."""
    files = PluginFiles()
    files.write(
        "join",
        POLICY.replace(
            "await self", "await __import__('asyncio').sleep(0.002)\n            await self", 1
        ),
    )
    it = await stage("--plugin-dir", str(files.path))

    assert await _best(it) > 2 * LIMIT


async def _best(it: Stage) -> float:
    """Give the best median of some rounds: a machine has other things to do, too."""
    rounds = [await latencies(it, 20, 20) for _ in range(ROUNDS)]
    print("".join(f"\n{told(found)}" for found in rounds))
    return min(map(median, rounds))
