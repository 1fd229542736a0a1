"""A host that ran mptcpd: its file, and the endpoint that it left, under this daemon."""
# SPDX-License-Identifier: BSD-3-Clause

import re

from tests.documents import FROM_MPTCPD
from tests.e2e.conftest import MakeStage
from tests.e2e.ctl import Ctl
from tests.e2e.stage import ENDPOINT
from tests.lab.hosts import LINKS, Lab, address
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.wait import eventually
from tests.test_config import MPTCPD_CONF

OURS = {address("client", link, family) for link in LINKS for family in (4, 6)}


async def test_what_mptcpd_left_stays_until_it_is_flushed(lab: Lab, stage: MakeStage) -> None:
    """All addresses get endpoints, although the file does not ask for `existing`."""
    left = address("client", 2)
    file = write_configuration(MPTCPD_CONF.format(directory=shipped_plugins()))
    (flush,) = re.findall(r"`mptcpctl (endpoint flush)`", FROM_MPTCPD.read_text())

    lab.ip("client", "mptcp", "endpoint", "add", left, "id", 9)
    it = await stage("--config", str(file), path_manager="kernel")

    async def origins() -> dict[str, str]:
        objects = await it.viewer.managed_objects()
        found = [its[ENDPOINT] for its in objects.values() if ENDPOINT in its]
        return {each["Address"]: each["Origin"] for each in found}

    async def all_there() -> bool:
        return set(await origins()) == OURS

    await eventually(all_there)
    assert {a for a, origin in (await origins()).items() if origin != "mptcpd"} == {left}

    Ctl(lab).said(*flush.split())

    async def all_ours() -> bool:
        return await origins() == dict.fromkeys(OURS, "mptcpd")

    await eventually(all_ours)
