"""Which of the kernel's path managers we have chosen, and which it was before: that is put back.

A host under the userspace path manager refuses joins while no daemon runs, so what we set must not
outlive us; but what somebody else has set since then is theirs.  The last word counts: a command's,
or that of a configuration that has changed.  A stop forgets the command.  A restart does not, and
puts nothing back: what connects meanwhile would be under the other path manager for its whole life.
Nor does a failure forget it, but it puts back, since nobody knows whether the next start succeeds.
Must not know the bus, nor where the note is kept.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mptcpd_dbus import notes
from mptcpd_dbus.core.errors import ConfigurationError, InvalidArgument, KernelRefused
from mptcpd_dbus.core.readings import SettingsRead

_Name = Annotated[str, Field(max_length=64)]

_log = logging.getLogger(__name__)


class _Note(notes.Note):
    before: _Name
    ours: _Name
    configured: _Name
    put_back: bool


class Choice:
    """The path manager that is ours; *changed* is called after each change."""

    def __init__(
        self,
        read: Callable[[], SettingsRead],
        write: Callable[[str], None],
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._read = read
        self._write = write
        self._changed = changed
        self._file: Path | None = None
        self._before = self._ours = self._configured = self._again = ""

    @property
    def is_ours(self) -> bool:
        """Whether there is something to put back, or to leave to the next daemon."""
        return bool(self._ours)

    def recall(self, file: Path | None) -> None:
        """Take in what the daemon that ran before has left, and note in *file* from now on."""
        self._file = file
        note = notes.read(file, _Note, "the path manager stays as it is") if file else None
        if note is None:
            return
        if note.put_back:
            self._again, self._configured = note.ours, note.configured
        elif note.ours == self._current():  # else it is somebody else's by now
            self._before, self._ours = note.before, note.ours
            self._configured = note.configured

    def follow(self, configured: str) -> None:
        """Go by the configuration, "" if it leaves the matter alone; raise ConfigurationError.

        What has been commanded since it said so stays.
        """
        again, self._again = self._again, ""
        wanted = again if configured == self._configured else configured
        try:
            if wanted:
                self.set(wanted)
            elif configured != self._configured:
                self._put_back()
                self._forget()
        except InvalidArgument as error:
            raise ConfigurationError(f"kernel-path-manager={wanted}: {error}") from None
        self._configured = configured
        self._note(put_back=False)

    def set(self, name: str) -> None:
        """Choose *name* for connections to come; raise InvalidArgument, KernelRefused."""
        current = self._current()
        if name != current:
            self._write(name)
            _log.info("new connections get the %s path manager, no longer %s", name, current)
        self._changed()
        if name == current and not self._ours:
            return  # it was so before us
        if current != self._ours:
            self._before = current
        self._ours = name
        self._note(put_back=False)

    def leave(self) -> None:
        """Put nothing back, and leave the rest to the next daemon."""
        self._ours = self._again = ""
        self._file = None

    def stop(self) -> None:
        """Put back what was before, and forget what was commanded."""
        self._put_back()
        self._forget()

    def fail(self) -> None:
        """Put back what was before; the next daemon sets it again."""
        if self._put_back():
            self._note(put_back=True)

    def _current(self) -> str:
        return self._read().path_manager

    def _put_back(self) -> bool:
        if not self._ours or self._ours != self._current() or self._ours == self._before:
            return False
        try:
            self._write(self._before)
        except (InvalidArgument, KernelRefused) as error:
            _log.error("new connections go on getting the %s path manager: %s", self._ours, error)
            return False
        _log.info("new connections get the %s path manager again", self._before)
        self._changed()
        return True

    def _forget(self) -> None:
        self._before = self._ours = ""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()

    def _note(self, *, put_back: bool) -> None:
        if self._file is None or not self._ours:
            return
        note = _Note(
            namespace=notes.namespace(),
            before=self._before,
            ours=self._ours,
            configured=self._configured,
            put_back=put_back,
        )
        try:
            notes.write(self._file, note)
        except OSError as error:
            words = "%s cannot be written (%s): after a crash the path manager stays as it is"
            _log.warning(words, self._file, error.strerror)
