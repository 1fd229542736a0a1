"""The kernel edge: the only part that speaks netlink; it knows the core, never the bus."""
# SPDX-License-Identifier: BSD-3-Clause
