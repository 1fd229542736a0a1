"""Fuzzing guided by coverage: a module for each reader of foreign bytes, and what runs them.

A target has `LENGTH`, what an input has at most; `seeds`, inputs to begin with; and `check`, which
lets no error through but what its reader may not raise.  What else led somewhere is kept in
corpus/, a file for each target with an input in hexadecimal per line.
"""
# SPDX-License-Identifier: BSD-3-Clause
