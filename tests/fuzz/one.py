"""`python -m tests.fuzz.one TARGET PROGRAM OPTION...`: fuzzes in this process, which that ends.

libFuzzer starts PROGRAM where it wants another process like this.
"""
# SPDX-License-Identifier: BSD-3-Clause

import sys
from importlib import import_module

import atheris

if __name__ == "__main__":
    name, program, *options = sys.argv[1:]
    # Only what is imported here tells its coverage, so no target may be imported before.
    with atheris.instrument_imports(include=["mptcpd_dbus", "plugins", "tests.fuzz.planted"]):
        target = import_module(f"tests.fuzz.{name}")
    atheris.Setup([program, f"-max_len={target.LENGTH}", *options], target.check)
    atheris.Fuzz()
