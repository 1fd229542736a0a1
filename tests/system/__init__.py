"""The package on booted Debian systems."""
# SPDX-License-Identifier: BSD-3-Clause
