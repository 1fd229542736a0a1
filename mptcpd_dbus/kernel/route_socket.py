"""pyroute2's socket of rtnetlink, without the rest of pyroute2, of which this is the only importer.

The package imports all of its modules (traffic control, WireGuard, a database), a tenth of what the
daemon would take of memory.  So while the one class is imported, the package is there but empty.
Whoever imports pyroute2 after that gets all of it.
"""
# SPDX-License-Identifier: BSD-3-Clause

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def _empty(package: str) -> Iterator[None]:
    """Have a package whose parts can be imported and which itself imports none."""
    spec = find_spec(package)
    if spec is None or package in sys.modules:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


with _empty("pyroute2"):
    from pyroute2.iproute.linux import AsyncIPRoute

__all__ = ["AsyncIPRoute"]
