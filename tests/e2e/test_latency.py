"""From the kernel's event to a policy's command on the wire, as packets show it."""
# SPDX-License-Identifier: BSD-3-Clause

from statistics import median

from tests.bench.latency import POLICY, joining, latencies, told
from tests.e2e.conftest import MakeStage
from tests.figures import tell
from tests.lab.plugin_files import PluginFiles

LIMIT = 0.001
ROUNDS = 3


async def test_a_lone_connection_is_acted_upon_within_a_millisecond(stage: MakeStage) -> None:
    it = await stage("--plugin-dir", str(joining().path))

    rounds: list[list[float]] = []
    # A machine has other things to do, too: the best of some rounds counts.
    while len(rounds) < ROUNDS and not (rounds and median(rounds[-1]) < LIMIT):
        rounds.append(await latencies(it, 10, 1))
        tell(f"event to command, one connection a second: {told(rounds[-1])}")
    assert median(rounds[-1]) < LIMIT


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

    assert median(await latencies(it, 10, 10)) > 2 * LIMIT
