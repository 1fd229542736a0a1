"""A rule of an administrator's, for a moment; it knows only where polkitd looks for them."""
# SPDX-License-Identifier: BSD-3-Clause

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def rule(text: str) -> Iterator[None]:
    """Have polkitd follow a rule; it notices files that come and go."""
    file = Path("/etc/polkit-1/rules.d/50-document.rules")
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()
