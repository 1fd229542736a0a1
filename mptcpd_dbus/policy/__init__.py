"""Policies: plugins, which of them decides for a connection, and what they see of the host."""
# SPDX-License-Identifier: BSD-3-Clause
