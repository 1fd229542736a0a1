"""What README.md shows of mptcpctl, taken from the lab and not drawn by hand.

    .venv/bin/python -m tests.lab.sandbox .venv/bin/python -m tests.captures   (or `make captures`)

It writes each capture anew: the text below a mark `<!-- capture: COMMAND -->`.  A test compares.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
import json
import re
from collections.abc import Collection

from tests.documents import README, blocks
from tests.e2e.ctl import Ctl
from tests.lab.app import converse
from tests.lab.bus import PrivateBus
from tests.lab.daemon import Daemon
from tests.lab.hosts import LINKS, SERVER, Lab
from tests.lab.plugin_files import shipped_plugins, write_configuration
from tests.lab.sandbox import SCRATCH, initial_root, readable_repository
from tests.lab.wait import eventually

_CAPTURE = re.compile(r"(?ms)(?<=<!-- capture: )(.*?)( -->\n```text\n)(.*?)(?=^```$)")
_PORTS = (443, 4242)
"""For the first one active_backup decides, by the README's configuration; it sends."""
_MESSAGE, _EVERY = 25_000, 0.01


def in_readme() -> dict[str, str]:
    """Give what is shown, by command."""
    return {command: shown for command, _, shown in _CAPTURE.findall(README.read_text())}


async def taken(wanted: Collection[str]) -> dict[str, str]:
    """Give what these commands print on a stage with two connections, of which the first sends."""
    policies = sorted((readable_repository() / "dbus").glob("*.conf")) if initial_root() else ()
    (configuration,) = blocks(README, "ini")
    with Lab() as lab, PrivateBus(policies=policies):
        lab.sysctl("client", "net.mptcp.path_manager", "userspace")
        config = str(write_configuration(configuration))
        daemon = Daemon(lab, "client", SCRATCH / "captures.log")
        await daemon.start("--config", config, "--plugin-dir", str(shipped_plugins()))
        client, server = lab.app("client"), lab.app("server")
        pairs = []
        for port in _PORTS:
            listener, _ = await server.call("listen", address=SERVER[4], port=port)
            pairs.append(await converse(client, server, listener, address=SERVER[4], port=port))
        ctl = Ctl(lab)

        def settled() -> bool:
            """Whether the plugin has its paths, and the state is complete."""
            first, second = json.loads(ctl.said("--json", "list"))["connections"]
            return len(first["subflows"]) == len(LINKS) and second["uid"] is not None

        await eventually(settled, within=10)
        await server.call("drain", talk=pairs[0].server)
        await client.call("push", talk=pairs[0].client, size=_MESSAGE, every=_EVERY)
        return {command: ctl.said(*command.split()) for command in wanted}


async def main() -> None:
    """Write the captures of README.md anew."""
    now = await taken(in_readme())
    text = _CAPTURE.sub(lambda found: found[1] + found[2] + now[found[1]], README.read_text())
    README.write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
