"""The socket comes without the rest of its package, which nobody is kept from."""
# SPDX-License-Identifier: BSD-3-Clause

import subprocess
import sys


def _modules(*statements: str) -> set[str]:
    """Give what of pyroute2 a fresh interpreter has imported after the statements."""
    code = [*statements, "import sys", "print(*(n for n in sys.modules if 'pyroute2' in n))"]
    argv = [sys.executable, "-c", "\n".join(code)]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return set(ran.stdout.split())


def test_only_what_the_socket_needs_is_imported() -> None:
    ours = _modules("import mptcpd_dbus.kernel.route_socket")
    whole = _modules("import pyroute2")

    assert "pyroute2.iproute.linux" in ours
    assert ours < whole
    assert "pyroute2.ndb.main" in whole - ours
    assert "pyroute2" in whole - ours


def test_who_imports_the_package_later_has_all_of_it() -> None:
    later = _modules(
        "from mptcpd_dbus.kernel.route_socket import AsyncIPRoute",
        "import pyroute2",
        "assert pyroute2.AsyncIPRoute is AsyncIPRoute",
        "assert pyroute2.IPRoute and pyroute2.NDB",
    )

    assert later == _modules("import pyroute2")
