"""The pure core: events in, changes out; no sockets, no bus, no waiting."""
# SPDX-License-Identifier: BSD-3-Clause
