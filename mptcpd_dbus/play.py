"""Moved to mptcpd_dbus/testing/; this goes soon."""
# SPDX-License-Identifier: BSD-3-Clause

from mptcpd_dbus.testing import *  # noqa: F403
from mptcpd_dbus.testing.clock import PlayedLoop as _Loop  # noqa: F401
from mptcpd_dbus.testing.play import PATIENCE  # noqa: F401
