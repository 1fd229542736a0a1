"""Proves that the wire shows what passes its link, and when, and nothing of other links."""
# SPDX-License-Identifier: BSD-3-Clause

import time

from tests.lab.app import converse
from tests.lab.hosts import SERVER, Lab
from tests.lab.wire import ACK, SYN, Wire


async def test_a_handshake_passes_the_first_link_and_no_other(lab: Lab) -> None:
    client, server = lab.app("client"), lab.app("server")
    listener, port = await server.call("listen", address=SERVER[4])
    begun = time.time()

    with Wire(lab, 1) as first, Wire(lab, 2) as second:
        pair = await converse(client, server, listener, address=SERVER[4], port=port)
        packets, others = first.packets(), second.packets()

    syn, answer = packets[:2]
    assert (syn.outgoing, syn.source, syn.destination) == (True, pair.local_port, port)
    assert syn.flags & (SYN | ACK) == SYN
    assert (answer.outgoing, answer.flags & (SYN | ACK)) == (False, SYN | ACK)
    assert begun < syn.time < answer.time < time.time()
    assert others == []
