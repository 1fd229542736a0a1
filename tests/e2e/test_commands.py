"""Every command does in the kernel what its D-Bus method says, or says why it could not.

What was done is asked of ip(8), ss(8) and the peer; what was refused has changed nothing.
"""
# SPDX-License-Identifier: BSD-3-Clause

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import MakeStage
from tests.e2e.stage import CONNECTION, ENDPOINT, MANAGER, PORT, SUBFLOW, Stage
from tests.lab.client import ROOT, BusError
from tests.lab.hosts import SERVER, address
from tests.lab.wait import eventually
from tests.system.product import Installed

pytestmark = pytest.mark.also_booted

OURS = "org.mptcpd1.Error."


def _endpoints(play: Stage) -> list[str]:
    return sorted(play.lab.ip(play.host, "mptcp", "endpoint", "show").splitlines())


async def _shown_endpoints(play: Stage) -> dict[str, dict[str, Any]]:
    objects = await play.viewer.managed_objects()
    return {path: o[ENDPOINT] for path, o in objects.items() if ENDPOINT in o}


async def _refused(play: Stage, name: str, text: str, *command: Any) -> str:
    with pytest.raises(BusError) as caught:
        await play.command(*command)
    assert caught.value.name == name
    assert text in caught.value.text
    return caught.value.text


def _join(path: str, **options: Any) -> tuple[Any, ...]:
    remote = options.pop("remote", ("", 0))
    return (path, CONNECTION, "CreateSubflow", "sqa{sv}", *remote, options)


async def test_a_join_that_nobody_waits_for_is_shown_as_it_was_asked_for(stage: MakeStage) -> None:
    """At once: the sweep would show it after five seconds."""
    it = await stage()
    _, path = await it.connection(await it.listener())

    answer = await it.create_subflow(path, LocalAddress="10.0.2.1", Backup=True, Wait=False)
    await it.heard("NewSubflow")

    assert answer == "/"

    async def asked() -> bool:
        return bool(await it.viewer.get(f"{path}/subflow/2", SUBFLOW, "BackupRequested"))

    await eventually(asked, within=1)


async def test_endpoints_are_added_changed_removed_and_flushed(stage: MakeStage) -> None:
    """ADD_ADDR, SET_FLAGS, DEL_ADDR and FLUSH_ADDRS, with GET_ADDR after each."""
    play = await stage(path_manager="kernel")

    path = await play.command(
        ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.2.1", ["subflow"], {"Interface": "link2"}
    )
    assert _endpoints(play) == ["10.0.2.1 id 1 subflow dev link2 "]
    wanted = {"Id": 1, "Address": "10.0.2.1", "Port": 0, "Flags": ["subflow"], "Interface": "link2"}
    shown = await _shown_endpoints(play)
    assert set(shown) == {path}
    assert wanted.items() <= shown[path].items()

    await play.command(path, ENDPOINT, "SetFlags", "asa{sv}", ["subflow", "backup"], {})
    assert _endpoints(play) == ["10.0.2.1 id 1 subflow backup dev link2 "]
    assert (await _shown_endpoints(play))[path]["Flags"] == ["subflow", "backup"]

    await play.command(path, ENDPOINT, "Remove", "a{sv}", {})
    assert not _endpoints(play)
    assert not await _shown_endpoints(play)

    for local in ("10.0.1.1", "dead:beef:3::1"):
        await play.command(
            ROOT,
            MANAGER,
            "AddEndpoint",
            "sasa{sv}",
            local,
            ["signal"],
            {"Id": 9 if ":" in local else 4},
        )
    assert len(_endpoints(play)) == 2
    assert {e["Id"] for e in (await _shown_endpoints(play)).values()} == {4, 9}
    await play.command(ROOT, MANAGER, "FlushEndpoints", "a{sv}", {})
    assert not _endpoints(play)
    assert not await _shown_endpoints(play)


async def test_limits_are_set_and_read_back(stage: MakeStage) -> None:
    """SET_LIMITS, with GET_LIMITS after it; what is not given stays."""
    play = await stage(path_manager="kernel")
    before = play.lab.ip("client", "mptcp", "limits").split()

    await play.command(ROOT, MANAGER, "SetLimits", "a{sv}", {"AddAddrAccepted": 3})

    assert before == ["add_addr_accepted", "0", "subflows", "2"]
    after = play.lab.ip("client", "mptcp", "limits").split()
    assert after == ["add_addr_accepted", "3", "subflows", "2"]
    assert await play.viewer.get(ROOT, MANAGER, "AddAddrAcceptedLimit") == 3
    assert await play.viewer.get(ROOT, MANAGER, "SubflowLimit") == 2
    await _refused(
        play,
        OURS + "KernelRefused",
        "EINVAL (limit greater than maximum (8))",
        *(ROOT, MANAGER, "SetLimits", "a{sv}", {"Subflows": 9}),
    )


async def test_the_path_manager_is_chosen(stage: MakeStage) -> None:
    """It changes the sysctl and what new connections get, and leaves the old ones alone."""
    play = await stage(path_manager="kernel")
    listener = await play.listener()
    _, old = await play.connection(listener)

    await play.command(ROOT, MANAGER, "SetPathManager", "sa{sv}", "userspace", {})

    assert play.lab.sysctl("client", "net.mptcp.path_manager") == "userspace"
    assert await play.viewer.get(ROOT, MANAGER, "PathManager") == "userspace"
    _, new = await play.connection(listener)
    assert await play.viewer.get(new, CONNECTION, "PathManager") == "userspace"
    assert await play.viewer.get(old, CONNECTION, "PathManager") == "kernel"
    text = await _refused(
        play,
        "org.freedesktop.DBus.Error.InvalidArgs",
        "no path manager 'nobody'",
        *(ROOT, MANAGER, "SetPathManager", "sa{sv}", "nobody", {}),
    )
    assert "kernel, userspace" in text


async def test_endpoint_commands_are_refused_with_the_kernels_words(stage: MakeStage) -> None:
    """A duplicate ID, a duplicate address, a ninth endpoint, and flags that exclude each other."""
    play = await stage(path_manager="kernel")

    def add(local: str, flags: list[str], **options: Any) -> tuple[Any, ...]:
        return (ROOT, MANAGER, "AddEndpoint", "sasa{sv}", local, flags, options)

    for n in range(1, 9):
        await play.command(*add(f"10.0.8.{n}", ["subflow"]))
    before = _endpoints(play)
    refused = OURS + "KernelRefused"
    text = await _refused(play, refused, "ERANGE", *add("10.0.8.9", ["subflow"]))
    assert "too many addresses or duplicate one: -34" in text
    await play.command("/org/mptcpd1/endpoint/8", ENDPOINT, "Remove", "a{sv}", {})
    text = await _refused(play, refused, "EBUSY", *add("10.0.8.9", ["subflow"], Id=1))
    assert "too many addresses or duplicate one: -16" in text
    await _refused(play, refused, "EEXIST", *add("10.0.8.1", ["subflow"]))
    both = add("10.0.8.9", ["signal", "fullmesh"])
    await _refused(play, refused, "flags mustn't have both signal and fullmesh", *both)
    assert _endpoints(play) == before[:-1]

    gone: tuple[Any, ...] = ("/org/mptcpd1/endpoint/1", ENDPOINT, "Remove", "a{sv}", {})
    play.lab.ip("client", "mptcp", "endpoint", "del", "id", 1)
    await _refused(play, OURS + "NoSuchEndpoint", "address not found", *gone)
    assert "/org/mptcpd1/endpoint/1" not in await _shown_endpoints(play)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_subflow_is_created_marked_and_destroyed(stage: MakeStage, family: int) -> None:
    """SUBFLOW_CREATE, SET_FLAGS with a token and SUBFLOW_DESTROY; its link's counters tell."""
    play = await stage()
    listener = await play.listener(SERVER[family])
    pair, path = await play.connection(listener, SERVER[family])
    before = play.lab.counters("client", 2)

    subflow = await play.create_subflow(path, Interface="link2", Backup=True)

    assert await play.viewer.get(subflow, SUBFLOW, "LocalAddress") == address("client", 2, family)
    assert await play.viewer.get(subflow, SUBFLOW, "BackupRequested") is True
    assert play.lab.counters("client", 2) > before
    await play.agreed()

    await play.command(subflow, SUBFLOW, "SetBackup", "ba{sv}", False, {})
    assert await play.viewer.get(subflow, SUBFLOW, "BackupRequested") is False
    await play.agreed()

    # The proof that it carries data: the first link goes silent, and the bytes still arrive.
    play.lab.drop(1)
    await play.client.call("send", talk=pair.client, count=100_000)
    assert await play.server.call("recv", talk=pair.server, count=100_000) == 100_000
    play.lab.restore(1)

    await play.command(subflow, SUBFLOW, "Destroy", "a{sv}", {})
    await play.heard("SubflowClosed", lambda body: body[1] == subflow)
    await play.agreed()
    assert len(await play.subflows()) == 1
    await _refused(
        play,
        "org.freedesktop.DBus.Error.UnknownObject",
        subflow,
        *(subflow, SUBFLOW, "Destroy", "a{sv}", {}),
    )


async def test_twenty_parallel_joins_each_get_their_own_subflow(stage: MakeStage) -> None:
    """All from one address: half say from which port, half leave it to the kernel."""
    play = await stage()
    play.lab.sysctl("server", "net.mptcp.path_manager", "userspace")
    listener = await play.listener()
    _, path = await play.connection(listener)
    ports = [*range(20001, 20011), *[0] * 10]

    made = await asyncio.gather(
        *(
            play.create_subflow(
                path, LocalAddress="10.0.2.1", **({"LocalPort": port} if port else {})
            )
            for port in ports
        )
    )

    assert len(set(made)) == 20
    for port, subflow in zip(ports, made, strict=True):
        assert await play.viewer.get(subflow, SUBFLOW, "LocalAddress") == "10.0.2.1"
        found = await play.viewer.get(subflow, SUBFLOW, "LocalPort")
        assert found == port if port else found not in ports
    await play.agreed()
    # One ID for the address, and one more for each of its ports that was asked for.
    ids = {row[3][0] for row in await play.subflows()}
    assert len(await play.subflows()) == 21
    assert len(ids) == 1 + 1 + 10


async def test_a_peer_that_denies_joins_to_its_first_address_is_heeded(stage: MakeStage) -> None:
    """The kernel would send such a join all the same (RFC 8684, section 3.1, flag C)."""
    play = await stage()
    listener = await play.listener()
    _, free = await play.connection(listener)
    play.lab.sysctl("server", "net.mptcp.allow_join_initial_addr_port", 0)
    _, path = await play.connection(listener)

    assert await play.viewer.get(path, CONNECTION, "DenyJoinId0") is True
    assert await play.viewer.get(free, CONNECTION, "DenyJoinId0") is False
    before = _counter(play, "client", "MPJoinSynTx")
    join = _join(path, LocalAddress="10.0.2.1")
    await _refused(play, OURS + "NotReady", "accepts no joins to its initial address", *join)
    assert _counter(play, "client", "MPJoinSynTx") == before
    await play.create_subflow(free, LocalAddress="10.0.2.1")


async def test_an_address_is_announced_and_removed(stage: MakeStage) -> None:
    """ANNOUNCE and REMOVE: the peer's kernel counts them, and joins to the address get through."""
    play = await stage(host="server")
    play.lab.sysctl("client", "net.mptcp.path_manager", "kernel")
    play.lab.ip("client", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
    listener = await play.listener()
    pair, path = await play.connection(listener)

    address_path = await play.command(
        path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 2), {}
    )

    assert address_path == f"{path}/address/local/1"
    body = await play.heard("NewSubflow")  # the client's kernel joins what it was told of
    assert body[3:5] == [address("server", 2), PORT]
    # The application listens on 10.0.9.1 only: without the daemon's own listener this join is
    # refused, as the next announcement shows.
    assert [address("server", 2), PORT] in await play.viewer.get(ROOT, MANAGER, "Listeners")
    await play.agreed()

    joins = _counter(play, "client", "MPJoinSynTx")
    await play.command(
        path, CONNECTION, "AnnounceAddress", "sa{sv}", address("server", 3), {"Listener": False}
    )
    await eventually(lambda: _counter(play, "client", "MPJoinSynTx") > joins)
    await eventually(lambda: "SYN-SENT" not in play.lab.ss("client", "-tnaH"))
    assert len(await play.subflows()) == 2

    await play.command(path, CONNECTION, "RemoveAddress", "ya{sv}", 1, {})
    await play.heard("SubflowClosed", lambda closed: closed[1] == body[1])
    assert _counter(play, "client", "RmAddr") == 1
    assert [address("server", 2), PORT] not in await play.viewer.get(ROOT, MANAGER, "Listeners")
    await play.agreed()
    await _refused(
        play,
        OURS + "NoSuchAddress",
        "address with id 99 not found",
        *(path, CONNECTION, "RemoveAddress", "ya{sv}", 99, {}),
    )
    del pair


def _counter(play: Stage, host: Any, name: str) -> int:
    lines = play.lab.run(host, ["cat", "/proc/net/netstat"]).splitlines()
    names, values = (line.split() for line in lines if line.startswith("MPTcpExt:"))
    return int(values[names.index(name)])


async def test_an_announced_address_is_withdrawn_though_its_subflow_was_destroyed(
    stage: MakeStage,
) -> None:
    """The end of the subflow makes the kernel forget the ID, but the peer still knows it."""
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)
    await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.2.1", {"Id": 3})
    subflow = await play.create_subflow(path, LocalAddress="10.0.2.1")
    assert await play.viewer.get(subflow, SUBFLOW, "LocalId") == 3

    await play.command(subflow, SUBFLOW, "Destroy", "a{sv}", {})
    assert f"{path}/address/local/3" not in await play.viewer.managed_objects()
    before = _counter(play, "server", "RmAddr")
    await play.command(path, CONNECTION, "RemoveAddress", "ya{sv}", 3, {})

    await eventually(lambda: _counter(play, "server", "RmAddr") == before + 1)
    place = ["10.0.2.1", await play.viewer.get(path, CONNECTION, "LocalPort")]
    assert place not in await play.viewer.get(ROOT, MANAGER, "Listeners")


async def test_a_subflow_that_is_destroyed_with_its_address_takes_along_all_from_there(
    stage: MakeStage,
) -> None:
    """The peer is told, and the address comes back under another ID."""
    play = await stage()
    play.lab.ip("server", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 0)
    listener = await play.listener()
    _, path = await play.connection(listener)
    subflow, sibling = [await play.create_subflow(path, LocalAddress="10.0.2.1") for _ in range(2)]
    other = await play.create_subflow(path, LocalAddress="10.0.3.1")
    before = _counter(play, "server", "RmAddr")

    await play.command(subflow, SUBFLOW, "Destroy", "a{sv}", {"Announce": True})

    for gone in (subflow, sibling):
        await play.heard("SubflowClosed", partial(_is_about, gone))
    assert _counter(play, "server", "RmAddr") == before + 1
    assert {row[3][0] for row in await play.subflows()} == {0, 2}
    again = await play.create_subflow(path, LocalAddress="10.0.2.1")
    assert await play.viewer.get(again, SUBFLOW, "LocalId") == 3
    # Control: destroyed alone, it takes nothing along, and nobody is told.
    await play.command(other, SUBFLOW, "Destroy", "a{sv}", {})
    await play.heard("SubflowClosed", partial(_is_about, other))
    assert _counter(play, "server", "RmAddr") == before + 1
    await play.agreed()


def _is_about(subflow: str, body: list[Any]) -> bool:
    return bool(body[1] == subflow)


def _joins(path: str, place: list[Any], body: list[Any]) -> bool:
    return body[0] == path and body[3:5] == place


async def test_an_announced_port_is_listened_on_until_its_last_user_goes(
    stage: MakeStage,
) -> None:
    """Two connections announce the same address and port; the listener serves both."""
    play = await stage(host="server")
    play.lab.ip("client", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
    listener = await play.listener()
    connections = [await play.connection(listener) for _ in range(2)]
    place = [address("server", 2), 7777]

    for _, path in connections:
        await play.command(
            path, CONNECTION, "AnnounceAddress", "sa{sv}", place[0], {"Port": place[1]}
        )
        await play.heard("NewSubflow", partial(_joins, path, place))
    listening = play.lab.ss("server", "-tlnH").count("10.0.2.2:7777")
    assert listening == 1

    (first, first_path), (_, second_path) = connections
    await play.client.call("close", number=first.client)
    await play.server.call("close", number=first.server)
    await play.heard("ConnectionClosed", lambda body: body[0] == first_path)
    assert place in await play.viewer.get(ROOT, MANAGER, "Listeners")

    await play.command(second_path, CONNECTION, "RemoveAddress", "ya{sv}", 1, {})
    assert place not in await play.viewer.get(ROOT, MANAGER, "Listeners")
    assert "7777" not in play.lab.ss("server", "-tlnH")


async def test_an_ipv6_port_is_announced_only_without_timestamps(stage: MakeStage) -> None:
    """With them the kernel says OK and sends nothing."""
    play = await stage(host="server")
    listener = await play.listener(SERVER[6])
    _, path = await play.connection(listener, SERVER[6])
    command = (
        *(path, CONNECTION, "AnnounceAddress", "sa{sv}"),
        *(address("server", 2, 6), {"Port": 7777}),
    )

    text = await _refused(play, OURS + "NotReady", "TCP timestamps", *command)
    assert "net.ipv4.tcp_timestamps=0" in text
    assert "7777" not in play.lab.ss("server", "-tlnH")
    assert _counter(play, "server", "AddAddrTxDrop") == 0

    play.lab.sysctl("server", "net.ipv4.tcp_timestamps", 0)
    await play.command(*command)
    assert "7777" in play.lab.ss("server", "-tlnH")


@pytest.mark.usefixtures("people")
async def test_a_low_port_needs_a_capability_and_the_error_says_so(
    stage: MakeStage, booted: Installed | None
) -> None:
    """For a listener of ours and for the kernel's own; the installed service has it."""
    play = await stage(host="server")
    listener = await play.listener()
    _, path = await play.connection(listener)
    there, port = address("server", 2), {"Port": 443}
    announce = (path, CONNECTION, "AnnounceAddress", "sa{sv}", there, port)
    add = (ROOT, MANAGER, "AddEndpoint", "sasa{sv}", address("server", 3), ["signal"], port)

    if booted is not None:
        for command in (announce, add):
            await play.command(*command)
        assert f"{there}:443 " in play.lab.ss("server", "-Mltn")
        assert "port 443 " in "".join(_endpoints(play))
        return
    for command in (announce, add):
        text = await _refused(play, OURS + "KernelRefused", "EACCES", *command)
        assert "CAP_NET_BIND_SERVICE" in text
    assert not _endpoints(play)


async def test_commands_on_a_connection_of_the_kernels_path_manager_are_refused(
    stage: MakeStage,
) -> None:
    """All of them, with the kernel's own words."""
    play = await stage(path_manager="kernel")
    listener = await play.listener()
    _, path = await play.connection(listener)

    for command in (
        _join(path, LocalAddress="10.0.2.1"),
        (path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.2.1", {}),
        (path, CONNECTION, "RemoveAddress", "ya{sv}", 1, {}),
        (f"{path}/subflow/1", SUBFLOW, "Destroy", "a{sv}", {}),
        (f"{path}/subflow/1", SUBFLOW, "SetBackup", "ba{sv}", True, {}),
    ):
        await _refused(play, OURS + "NotManageable", "userspace PM not selected", *command)
    assert len(play.sockets()) == 1


async def test_commands_on_an_aborted_connection_say_that_it_is_gone(stage: MakeStage) -> None:
    """The peer's abort raises no event; the first refused command finds the loss out."""
    play = await stage()
    listener = await play.listener()
    pair, path = await play.connection(listener)
    await play.agreed()
    await play.server.call("abort", talk=pair.server)
    await eventually(lambda: not play.sockets())
    assert path in await play.viewer.managed_objects()

    backup: tuple[Any, ...] = (f"{path}/subflow/1", SUBFLOW, "SetBackup", "ba{sv}", True, {})
    await _refused(play, OURS + "NoSuchConnection", "EINVAL (invalid token)", *backup)
    await play.heard("ConnectionClosed", lambda body: bool(body[0] == path))
    assert path not in await play.viewer.managed_objects()


async def test_a_join_on_an_aborted_connection_says_that_it_is_gone(stage: MakeStage) -> None:
    """Before anything is sent: the table of IDs is read first."""
    play = await stage()
    listener = await play.listener()
    pair, path = await play.connection(listener)
    await play.server.call("abort", talk=pair.server)
    await eventually(lambda: not play.sockets())

    command = _join(path, LocalAddress="10.0.2.1")
    await _refused(play, OURS + "NoSuchConnection", "invalid token", *command)

    await play.heard("ConnectionClosed", lambda body: body[0] == path)
    assert path not in await play.viewer.managed_objects()


async def test_joins_that_cannot_be_are_refused_with_the_reason(stage: MakeStage) -> None:
    """A source that is not ours, no route, a closed port, an address ID that is taken."""
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)
    refused, failed = OURS + "KernelRefused", OURS + "SubflowFailed"

    source = _join(path, LocalAddress="10.0.77.1")
    await _refused(play, refused, "EADDRNOTAVAIL (connect error: -99)", *source)
    route = _join(path, remote=("203.0.113.9", PORT), Interface="")
    await _refused(play, refused, "ENETUNREACH (connect error: -101)", *route)
    closed = _join(path, remote=("", 9), LocalAddress="10.0.2.1")
    await _refused(play, failed, "refused: nothing listens on that port", *closed)
    families = _join(path, LocalAddress="dead:beef:2::1")
    await _refused(play, refused, "families mismatch", *families)
    assert len(play.sockets()) == 1

    await play.command(path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.3.1", {"Id": 5})
    taken = (path, CONNECTION, "AnnounceAddress", "sa{sv}", "10.0.2.1", {"Id": 5})
    await _refused(play, refused, "did not match address and id", *taken)
    await play.agreed()


async def test_a_join_that_the_peer_refuses_by_its_limit_is_no_success(stage: MakeStage) -> None:
    """SUB_ESTABLISHED comes first all the same; with room at the peer the same call succeeds."""
    play = await stage()
    play.lab.ip("server", "mptcp", "limits", "set", "subflow", 0, "add_addr_accepted", 0)
    listener = await play.listener()
    _, path = await play.connection(listener)
    command = _join(path, LocalAddress="10.0.2.1")

    await _refused(play, OURS + "SubflowFailed", "refused by the peer", *command)
    await play.heard("NewSubflow")
    await play.heard("SubflowClosed")
    await play.agreed()
    assert len(await play.subflows()) == 1

    play.lab.ip("server", "mptcp", "limits", "set", "subflow", 2, "add_addr_accepted", 0)
    _, other = await play.connection(listener)
    await play.create_subflow(other, LocalAddress="10.0.2.1")


async def test_a_join_without_an_answer_times_out_and_leaves_nothing(stage: MakeStage) -> None:
    """Over a silent path; the control is the same join over the path restored."""
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)
    play.lab.drop(2)
    command = _join(path, Interface="link2", Timeout=1)

    await _refused(play, OURS + "SubflowFailed", "timed out after 1 s", *command)

    assert not play.lab.ss("client", "-tnH", "state", "syn-sent")
    await play.agreed()
    play.lab.restore(2)
    subflow = await play.create_subflow(path, Interface="link2", Timeout=5)
    assert await play.viewer.get(subflow, SUBFLOW, "Interface") == "link2"


async def test_a_connection_that_closes_while_a_join_waits_ends_it(stage: MakeStage) -> None:
    """At once, and not after the time limit."""
    play = await stage()
    listener = await play.listener()
    pair, path = await play.connection(listener)
    play.lab.drop(2)
    command = _join(path, Interface="link2", Timeout=20)
    waiting = asyncio.ensure_future(
        _refused(play, OURS + "SubflowFailed", "closed meanwhile", *command)
    )
    await eventually(lambda: play.lab.ss("client", "-tnH", "state", "syn-sent"))

    await play.client.call("close", number=pair.client)

    async with asyncio.timeout(3):
        await waiting


async def test_bad_arguments_are_refused_by_name(stage: MakeStage) -> None:
    """Each error names the argument and its value; nothing reaches the kernel."""
    play = await stage()
    listener = await play.listener()
    _, path = await play.connection(listener)
    invalid = "org.freedesktop.DBus.Error.InvalidArgs"

    for text, options in (
        ("unknown option 'Nonsense'", {"Nonsense": True}),
        ("Backup", {"Backup": "yes"}),
        ("Timeout", {"Timeout": 21}),
        ("LocalAddress: 'here'", {"LocalAddress": "here"}),
        ("no network interface 'eth77'", {"Interface": "eth77"}),
    ):
        await _refused(play, invalid, text, *_join(path, **options))
    where = _join(path, remote=("nowhere", 1))
    await _refused(play, invalid, "remote_address: 'nowhere'", *where)
    flags: tuple[Any, ...] = (ROOT, MANAGER, "AddEndpoint", "sasa{sv}", "10.0.2.1", ["subflw"], {})
    await _refused(play, invalid, "unknown flag 'subflw'", *flags)
    assert len(play.sockets()) == 1
