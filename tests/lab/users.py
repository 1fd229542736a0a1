"""The people of the lab, in copies of the machine's account files mounted over them.

alice is anybody, carol is in the group that the lab's polkit rule allows everything, bob is an
administrator (he has a password to be asked for), dora is in the group that may register policies
and nothing else, mptcpd-dbus is the daemon.  Real root only.
"""
# SPDX-License-Identifier: BSD-3-Clause

import pwd
import shutil
import subprocess
from pathlib import Path

from tests.lab.sandbox import SCRATCH

DAEMON = "mptcpd-dbus"
ALLOWED_GROUP = "lab-allowed"
DECIDING_GROUP = "lab-deciding"
PEOPLE = {"alice": 64010, "bob": 64011, "carol": 64012, "dora": 64013, DAEMON: 64001}


def install() -> None:
    """Add the people, once in a sandbox; a user that the machine has already stays as it is."""
    copies = SCRATCH / "etc"
    if copies.exists():
        return
    copies.mkdir()
    missing = {name: uid for name, uid in PEOPLE.items() if not _exists(name)}
    lines = {
        "passwd": [f"{name}:x:{uid}:{uid}::/tmp:/bin/sh" for name, uid in missing.items()],
        "group": [
            *(f"{name}:x:{uid}:" for name, uid in missing.items()),
            f"{ALLOWED_GROUP}:x:64020:carol",
            f"{DECIDING_GROUP}:x:64021:dora",
        ],
        "shadow": [f"{name}:*:19000:0:99999:7:::" for name in missing],
    }
    for file, added in lines.items():
        copy, original = copies / file, Path("/etc") / file
        shutil.copy2(original, copy)
        with copy.open("a") as text:
            text.write("\n".join(added) + "\n")
        subprocess.run(["mount", "--bind", str(copy), str(original)], check=True)


def as_user(name: str | None, argv: list[str], *, capability: str | None = None) -> list[str]:
    """Return the command line that runs argv as that user, with one ambient capability or none."""
    if name is None:
        return argv
    user = pwd.getpwnam(name)
    gain = [f"--inh-caps=-all,+{capability}", f"--ambient-caps=+{capability}"] if capability else []
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    return ["setpriv", *identity, *gain, "--", *argv]


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
