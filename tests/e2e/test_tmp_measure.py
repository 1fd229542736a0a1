import pytest
from tests.e2e.subflows import *
from tests.lab.hosts import SERVER, address
from tests.lab.wait import eventually

@pytest.mark.parametrize("n", range(6))
async def test_measure(stage, n):
    it = await stage_with(stage, "fullmesh", host="server")
    it.lab.sysctl("client", "net.mptcp.path_manager", "kernel")
    it.lab.ip("client", "mptcp", "limits", "set", "subflows", 8, "add_addr_accepted", 8)
    it.lab.ip("server", "address", "add", "10.0.2.9/24", "dev", "link2")
    own = address("server", 1, 4)
    listener = await it.listener(own)
    first = {(address("client", 1, 4), own)}
    joined = {("10.0.2.1","10.0.2.2"),("10.0.2.1","10.0.2.9"),("10.0.3.1","10.0.3.2")}
    pairs = [await connect(it, listener, own) for _ in range(40)]
    for pair in pairs: await exactly(it, pair, first | joined)
    it.lab.cut(2)
    bad = 0
    for pair in pairs:
        try:
            await exactly(it, pair, first | {("10.0.3.1","10.0.3.2")})
        except AssertionError:
            bad += 1
            if bad > 2: break
    for h in ("client", "server"):
        print("\nbad", bad, h, [l.split()[:2] for l in it.lab.run(h, ["nstat", "-az"]).splitlines() if "RmAddr" in l and "MPTcp" in l])
