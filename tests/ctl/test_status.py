"""Who steers new connections, in a line."""
# SPDX-License-Identifier: BSD-3-Clause

from typing import Any

import pytest

from mptcpd_dbus.ctl.status import steered_by


def _plugin(name: str, steers: str, state: str = "running") -> dict[str, Any]:
    return {"name": name, "steers": steers, "state": state}


ADDR_ADV, SSPI = _plugin("addr_adv", "kernel"), _plugin("sspi", "userspace")
RULES, FAILED = _plugin("rules", "both"), _plugin("fullmesh", "userspace", "failed")
OURS, THEIRS = {"origin": "mptcpd"}, {"origin": "networkmanager"}
TO_PLUGINS = "; by plugins after `mptcpctl path-manager userspace`"
TO_KERNEL = "; by the kernel after `mptcpctl path-manager kernel`"


@pytest.mark.parametrize(
    ("path_manager", "plugins", "endpoints", "words"),
    [
        ("kernel", [ADDR_ADV], [], "the kernel, by its endpoints (none)" + TO_PLUGINS),
        (
            *("kernel", [ADDR_ADV, SSPI], [OURS, THEIRS, OURS]),
            "the kernel, by its endpoints (2 of mptcpd, 1 of networkmanager)" + TO_PLUGINS,
        ),
        ("userspace", [RULES, SSPI, ADDR_ADV, FAILED], [OURS], "rules, sspi" + TO_KERNEL),
        (
            *("userspace", [ADDR_ADV, FAILED], []),
            "nobody: no plugin for it is running" + TO_KERNEL,
        ),
        ("bpf_one", [SSPI], [], "the kernel's bpf_one"),
    ],
)
def test_who_steers_is_told_and_how_to_change_that(
    path_manager: str,
    plugins: list[dict[str, Any]],
    endpoints: list[dict[str, Any]],
    words: str,
) -> None:
    data = {"path_manager": path_manager, "plugins": plugins, "endpoints": endpoints}

    assert steered_by(data) == words
