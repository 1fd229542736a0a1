"""Control groups by their IDs: in the kernel's own tree, and when it is walked and when not."""
# SPDX-License-Identifier: BSD-3-Clause

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest

from mptcpd_dbus.policy import cgroups
from mptcpd_dbus.policy.cgroups import FORGET_AFTER, SHARE, ControlGroups, mount_point


class Clock:
    """A clock that stands still until it is told the time."""

    def __init__(self) -> None:
        self.time = 100.0
        self.takes = 0.0

    def __call__(self) -> float:
        """Give the time; to look at it *takes* some, and so does what is between two looks."""
        self.time += self.takes
        return self.time


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="groups")
def _groups(tmp_path: Path, clock: Clock) -> ControlGroups:
    return ControlGroups(tmp_path, clock)


@pytest.fixture(name="mounted")
def _mounted(people: None, tmp_path: Path) -> Iterator[Path]:
    """Mount the kernel's control groups, which only root may do."""
    del people
    place = tmp_path / "control groups"
    place.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _make(*names: str, root: Path) -> int:
    place = root.joinpath(*names)
    place.mkdir(parents=True)
    return place.stat().st_ino


@pytest.mark.real_kernel
def test_a_control_group_of_the_kernel_is_found_and_one_that_is_gone_is_not(
    mounted: Path, clock: Clock
) -> None:
    names = (f"lab-{token_hex(8)}.slice", "lab.service")
    groups = ControlGroups(None, clock)
    with ExitStack() as made:
        for depth in (1, 2):
            place = mounted.joinpath(*names[:depth])
            place.mkdir()
            made.callback(place.rmdir)
        inner, outer = place.stat().st_ino, place.parent.stat().st_ino

        assert groups.path(inner) == names
        assert groups.path(outer) == names[:1]
        assert groups.path(mounted.stat().st_ino) == ()
    assert ControlGroups(None, clock).path(inner) == ()


def test_the_mount_point_is_unescaped_and_one_below_another_mount_is_none(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    device = f"{os.major(place.stat().st_dev)}:{os.minor(place.stat().st_dev)}"
    escaped = str(place).replace(" ", r"\040")
    mounts = tmp_path / "mountinfo"
    lines = [
        f"30 1 {device} / {tmp_path} rw - tmpfs tmpfs rw",
        f"31 1 {device} / {tmp_path}/hidden rw shared:4 - cgroup2 cgroup2 rw",
        f"32 1 0:9999 / {tmp_path} rw shared:4 - cgroup2 cgroup2 rw",
        f"33 1 {device} / {escaped} rw shared:4 master:1 - cgroup2 cgroup2 rw",
    ]

    mounts.write_text("\n".join(lines))
    assert mount_point(mounts) == place

    mounts.write_text("\n".join(lines[:3]))
    assert mount_point(mounts) is None


def test_without_control_groups_there_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = _make("a.slice", root=tmp_path)
    (tmp_path / "mountinfo").touch()
    assert ControlGroups(tmp_path).path(there) == ("a.slice",)

    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mountinfo")

    assert ControlGroups().path(there) == ()


def test_a_tree_that_went_away_has_no_groups(tmp_path: Path, clock: Clock) -> None:
    assert ControlGroups(tmp_path / "missing", clock).path(1) == ()


def test_files_and_links_are_no_groups(tmp_path: Path, groups: ControlGroups) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    there = _make("a.slice", root=tmp_path)

    assert groups.path((tmp_path / "file").stat().st_ino) == ()
    assert ControlGroups(tmp_path).path((tmp_path / "link").lstat().st_ino) == ()
    assert ControlGroups(tmp_path).path(there) == ("a.slice",)


def test_a_walk_is_followed_by_a_rest_of_nine_times_its_length(
    tmp_path: Path, clock: Clock, groups: ControlGroups
) -> None:
    clock.takes = 1.0
    assert groups.path(_make("a.slice", root=tmp_path)) == ("a.slice",)
    new = _make("b.slice", root=tmp_path)
    clock.takes = 0.0

    clock.time += SHARE - 1 - 0.1
    assert groups.path(new) == ()

    clock.time += 0.1
    assert groups.path(new) == ("b.slice",)


def test_what_was_found_is_kept_without_a_walk(
    tmp_path: Path, clock: Clock, groups: ControlGroups
) -> None:
    there = _make("a.slice", root=tmp_path)
    assert groups.path(there) == ("a.slice",)

    (tmp_path / "a.slice").rmdir()
    clock.time += 10 * FORGET_AFTER

    assert groups.path(there) == ("a.slice",)
    assert ControlGroups(tmp_path, clock).path(there) == ()


def test_an_unknown_group_costs_no_walk_for_a_while(
    tmp_path: Path, clock: Clock, groups: ControlGroups
) -> None:
    there = _make("a.slice", root=tmp_path)
    (tmp_path / "a.slice").rename(tmp_path.parent / "aside.slice")
    assert groups.path(there) == ()
    (tmp_path.parent / "aside.slice").rename(tmp_path / "a.slice")

    clock.time += FORGET_AFTER - 1
    assert groups.path(there) == ()

    clock.time += 1
    assert groups.path(there) == ("a.slice",)


def test_the_walk_of_another_group_finds_the_unknown_one_earlier(
    tmp_path: Path, groups: ControlGroups
) -> None:
    there = _make("a.slice", root=tmp_path)
    (tmp_path / "a.slice").rename(tmp_path.parent / "beside.slice")
    assert groups.path(there) == ()
    (tmp_path.parent / "beside.slice").rename(tmp_path / "a.slice")

    assert groups.path(_make("b.slice", root=tmp_path)) == ("b.slice",)

    assert groups.path(there) == ("a.slice",)


def test_deep_groups_are_left_out_before_shallow_ones(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "MAX_GROUPS", 4)
    crowd = [_make("user.slice", "a.scope", f"{n}.scope", root=tmp_path) for n in range(9)]
    service = _make("system.slice", "b.service", root=tmp_path)

    groups = ControlGroups(tmp_path, clock)

    assert groups.path(service) == ("system.slice", "b.service")
    assert [path for path in map(groups.path, crowd) if path] == []
    monkeypatch.setattr(cgroups, "MAX_GROUPS", 5)
    assert len([path for path in map(ControlGroups(tmp_path).path, crowd) if path]) == 1


@pytest.mark.parametrize("asked_first", [True, False])
def test_no_more_unknown_groups_are_remembered_than_the_bound(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, asked_first: bool
) -> None:
    """The one asked for first is forgotten: it costs a walk again, and so is found."""
    monkeypatch.setattr(cgroups, "MAX_GROUPS", 2)
    root, aside = tmp_path / "root", tmp_path / "aside"
    root.mkdir()
    there = _make(root=aside)
    groups = ControlGroups(root, clock)
    for unknown in (there, 1, 2) if asked_first else (1, 2, there):
        assert groups.path(unknown) == ()

    aside.rename(root / "a.slice")

    assert groups.path(there) == (("a.slice",) if asked_first else ())
