"""A plugin as a program of its own: the daemon's objects for a state, its methods for commands."""
# SPDX-License-Identifier: BSD-3-Clause
