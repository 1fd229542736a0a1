"""mptcpctl, the command-line client: it knows D-Bus, and nothing of what is behind it.

A line is read by the table of commands (parser, commands); the command's own module asks the daemon
over the bus (daemon), names objects as people do (find), makes JSON of their properties (things),
and hands both, JSON and tables, to the one place that prints (view, output).
"""
# SPDX-License-Identifier: BSD-3-Clause
