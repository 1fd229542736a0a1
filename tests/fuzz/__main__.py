"""`python -m tests.fuzz [EXECUTIONS] [TARGET...]`: fuzzes, and keeps what led somewhere new."""
# SPDX-License-Identifier: BSD-3-Clause

import sys
import time

from tests.fuzz.fuzzing import CORPUS, TARGETS, grow, kept

EXECUTIONS = 1_000_000


def main(executions: str = str(EXECUTIONS), *targets: str) -> int:
    """Fuzz one target after the other; 1 where an input broke one."""
    broken = False
    for target in targets or TARGETS:
        began = time.monotonic()
        outcome = grow(target, int(executions))
        seconds = time.monotonic() - began
        print(
            f"{target}: {outcome.executions} executions in {seconds:.0f} s,"
            f" {len(kept(target))} inputs kept",
            flush=True,
        )
        if outcome.culprit is not None:
            broken = True
            print(outcome.told[-6000:])
            print(f"broken by the line below; add it to {CORPUS / target}.hex\n")
            print(outcome.culprit.hex())
    return broken


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
