"""What all tests share: the lab's fixtures, logs on failure, and the rules of the house.

A test that was skipped is a failure for root and in continuous integration, where nothing may be
missing.  A test that asks for the lab runs against the real kernel, and the summary counts those.
"""
# SPDX-License-Identifier: BSD-3-Clause

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis  # noqa: F401  # its plugin would import it in the summary: too deep for 3.11.2
import pytest

from tests import figures
from tests.lab import users
from tests.lab.bus import PrivateBus, installed_kinds
from tests.lab.daemon import Daemon
from tests.lab.hosts import Host, Lab
from tests.lab.sandbox import initial_root, inside, readable_repository
from tests.system.product import SYSTEMS, Installed, install
from tests.system.service import Service

REAL_KERNEL = "real_kernel"
LOGS = pytest.StashKey[dict[str, Callable[[], str]]]()
SANDBOX = (
    "this test needs the sandbox: run `make test`, or"
    " `.venv/bin/python -m tests.lab.sandbox .venv/bin/pytest ...`"
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Give two hosts and three links."""
    _need_sandbox()
    with Lab() as hosts:
        yield hosts


@pytest.fixture
def people() -> None:
    """Give alice, bob, carol and the daemon's user; only root can have them."""
    _need_sandbox()
    if not initial_root():
        pytest.skip("only root has users to test with")
    users.install()


@pytest.fixture
def bus_policies() -> list[Path]:
    """Give the files that say who may what on the bus; tests with more services there have more."""
    return sorted((readable_repository() / "dbus").glob("*.conf"))


@pytest.fixture
def booted(request: pytest.FixtureRequest) -> Installed | None:
    """Give the system where the daemon is an installed service; None for that of the sources."""
    which = getattr(request, "param", None)
    if which and not initial_root():
        pytest.skip("only root can boot a system")
    return install(*which) if which else None


@pytest.fixture
def bus(
    request: pytest.FixtureRequest, bus_policies: list[Path], booted: Installed | None
) -> Iterator[PrivateBus | None]:
    """Give the system bus with our policies, and as root with polkitd, unless a system has one."""
    _need_sandbox()
    if booted is not None:
        yield None
        return
    repository = readable_repository()
    with PrivateBus(
        policies=bus_policies if initial_root() else (),
        polkit=initial_root(),
        actions=sorted((repository / "polkit").glob("*.policy")),
    ) as private:
        show_on_failure(request, "bus", private.logs)
        yield private


@pytest.fixture
def daemon(
    request: pytest.FixtureRequest,
    lab: Lab,
    bus: PrivateBus | None,
    tmp_path: Path,
    booted: Installed | None,
) -> Iterator[Callable[..., Daemon]]:
    """Give a maker of daemons on hosts of the lab; each still wants its start()."""
    del bus  # it must only be there
    services: list[Service] = []

    def make(host: Host = "client") -> Daemon:
        log = tmp_path / f"daemon-{host}.log"
        log.touch()
        show_on_failure(request, f"daemon on the {host}", log.read_text)
        if booted is None:
            return Daemon(lab, host, log)
        services.append(Service(lab, host, log, booted))
        show_on_failure(request, f"journal of the {host}", services[-1].machine.journal)
        return services[-1]

    yield make
    for service in services:
        service.end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked so with installed services, also or only."""
    also = metafunc.definition.get_closest_marker("also_booted")
    if also or metafunc.definition.get_closest_marker("only_booted"):
        systems = [
            pytest.param(system, id=f"{system[0]}-{system[1]}", marks=pytest.mark.booted)
            for system in SYSTEMS
        ]
        sources = [pytest.param(None, id="sources")] if also else []
        metafunc.parametrize("booted", [*sources, *systems], indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{REAL_KERNEL}: runs against the kernel of this machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask for the lab, and those that boot a system."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(REAL_KERNEL)
        if item.path.parent.name == "system":
            item.add_marker("booted")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs to the report of a failure."""
    report = yield
    if report.failed:
        for title, read in item.stash.get(LOGS, {}).items():
            report.sections.append((title, read()))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail when something was skipped where nothing may be."""
    if _skipped(session.config) and (initial_root() or os.environ.get("CI")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was proved on the real kernel, and what was not proved at all."""
    ran = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and REAL_KERNEL in report.keywords
    ]
    for line in figures.TOLD:
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"{len(ran)} tests ran against the real kernel")
    terminalreporter.write_line(f"buses to test on: {', '.join(installed_kinds()) or 'none'}")
    if _skipped(config):
        terminalreporter.write_line(f"{_skipped(config)} skipped: a failure for root and in CI")


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.getreports("skipped")) if reporter else 0


def _need_sandbox() -> None:
    if not inside():
        pytest.fail(SANDBOX, pytrace=False)


def show_on_failure(request: pytest.FixtureRequest, title: str, read: Callable[[], str]) -> None:
    """Add what *read* gives to the report, should the test fail."""
    request.node.stash.setdefault(LOGS, {})[title] = read
