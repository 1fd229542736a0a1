"""What an error says."""
# SPDX-License-Identifier: BSD-3-Clause

import pytest

from mptcpd_dbus.core.errors import KernelRefused


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            KernelRefused("REMOVE", 22, "invalid token"),
            "the kernel refused REMOVE: EINVAL (invalid token)",
        ),
        (KernelRefused("REMOVE", 1), "the kernel refused REMOVE: EPERM"),
        (KernelRefused("REMOVE", 4095), "the kernel refused REMOVE: errno 4095"),
    ],
)
def test_a_refusal_names_the_command_the_errno_and_the_kernels_words(
    error: KernelRefused, text: str
) -> None:
    assert str(error) == text
