"""mptcpctl, the command-line client: it knows D-Bus, and nothing of what is behind it."""
# SPDX-License-Identifier: BSD-3-Clause
