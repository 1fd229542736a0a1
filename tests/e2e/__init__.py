"""The daemon as a process, on the real kernel and a real bus."""
# SPDX-License-Identifier: BSD-3-Clause
