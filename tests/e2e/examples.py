"""What the tests of the examples share: how one is started, and what most of them make."""
# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

from tests.e2e.stage import Stage
from tests.lab.sandbox import initial_root, readable_repository
from tests.lab.users import as_user

SPARE = "10.0.2.1"  # the client's address on link2


def argv_of(example: str, *arguments: str, user: str | None = "alice") -> list[str]:
    """Give the command line of an example; those on dbus-next get the one of our environment.

    Where there are no other users, it is run as who there is.
    """
    repository = readable_repository()
    file = f"{repository}/docs/examples/{example}"
    python = [f"{repository}/.venv/bin/python"] if "dbus_next" in Path(file).read_text() else []
    return as_user(user if initial_root() else None, [*python, file, *arguments])


def spares(it: Stage) -> list[tuple[int, bool]]:
    """Give token and backup of each subflow from the spare address, as the kernel has them."""
    return sorted((s[0], s[4][0]) for s in it.sockets() if s[1][0] == SPARE)
