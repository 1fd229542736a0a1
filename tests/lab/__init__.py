"""The lab: two hosts with three links, a private system bus, applications and clients; no fakes.

It works inside `tests.lab.sandbox` only, where all it makes dies with the namespaces.
"""
# SPDX-License-Identifier: BSD-3-Clause
