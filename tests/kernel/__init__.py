"""The kernel edge: first on recorded bytes, then on the kernel of this machine."""
# SPDX-License-Identifier: BSD-3-Clause
