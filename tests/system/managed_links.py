"""Links of the lab that are left to a machine's own NetworkManager: link1 and link2, and not link3.

What the lab has set on them is taken away, and NetworkManager has profiles, lab1 and lab2: their
addresses, and default routes, without which it makes no endpoints.  Everything else is as Debian
ships it.  See nm-settings-keyfile(5), NetworkManager.conf(5).  It must not know the service.
"""
# SPDX-License-Identifier: BSD-3-Clause

from tests.lab.hosts import Lab, address
from tests.system.machine import Machine

LINKS = (1, 2)
DEVICES = {f"link{link}" for link in LINKS}

_PLACE = "etc/NetworkManager"
_LEFT_ALONE = "[keyfile]\nunmanaged-devices=interface-name:link3\n"
_PROFILE = """\
[connection]
id=lab{link}
uuid=00000000-0000-4000-8000-00000000000{link}
type=ethernet
interface-name=link{link}
[ipv4]
method=manual
address1={v4[0]}/24,{v4[1]}
route-metric={metric}
[ipv6]
method=manual
address1={v6[0]}/64,{v6[1]}
route-metric={metric}
"""


def leave_links(lab: Lab, machine: Machine) -> None:
    """Do so for a machine that is the client, and is off yet."""
    place = machine.root / _PLACE
    (place / "conf.d/lab.conf").write_text(_LEFT_ALONE)
    for link in LINKS:
        lab.ip("client", "address", "flush", "dev", f"link{link}")
        v4, v6 = (
            [address(side, link, family) for side in ("client", "server")] for family in (4, 6)
        )
        profile = place / f"system-connections/lab{link}.nmconnection"
        profile.write_text(_PROFILE.format(link=link, v4=v4, v6=v6, metric=100 * link))
        profile.chmod(0o600)  # it reads no others
