"""The bus edge: the only part that speaks D-Bus; it knows the core, never the kernel edge."""
# SPDX-License-Identifier: BSD-3-Clause
