"""mptcpd-dbus: Multipath TCP path management as a D-Bus system service."""
# SPDX-License-Identifier: BSD-3-Clause

__version__ = "0.1.0"
