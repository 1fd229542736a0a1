"""The lock file fits pyproject.toml: `make lock` was run after the last change there."""
# SPDX-License-Identifier: BSD-3-Clause

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lab.sandbox import REPOSITORY

LOCK = (REPOSITORY / "systemd/requirements.lock").read_text()
LOCKED = {
    canonicalize_name(it.name): it
    for it in map(Requirement, re.findall(r"^(\S+==[^\\\n]+?) *\\?$", LOCK, re.MULTILINE))
}


def test_every_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    for wanted in map(Requirement, project["dependencies"]):
        (pin,) = LOCKED[canonicalize_name(wanted.name)].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), wanted


def test_every_package_has_hashes_and_comes_from_nowhere_in_particular() -> None:
    """The lock file names no place: that is the business of whoever builds."""
    hashed = re.findall(
        r"^\S+==.*\\\n(?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", LOCK, re.MULTILINE
    )

    assert "".join(hashed) == LOCK
    assert len(hashed) == len(LOCKED) > 5


def test_the_debian_package_says_whose_each_of_them_is() -> None:
    told = (REPOSITORY / "systemd/debian/copyright").read_text()
    prefixes = tuple(re.findall(r"build/\*/(\w+)\*", told))
    linux = {name for name, it in LOCKED.items() if it.marker is None or it.marker.evaluate()}

    assert {name for name in linux if not name.replace("-", "_").startswith(prefixes)} == set()
    assert all(any(n.replace("-", "_").startswith(p) for n in linux) for p in prefixes)
