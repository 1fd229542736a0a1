"""Benchmarks: figures with their ratio from one run; they judge nothing."""
# SPDX-License-Identifier: BSD-3-Clause
