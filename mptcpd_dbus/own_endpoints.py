"""Which endpoints this daemon has added, also before it was started again: endpoints outlive it.

What is noted is ID, address, port, and who had it added; the ID alone may be another program's by
now.  Must not know the bus, nor how the kernel is asked.
"""
# SPDX-License-Identifier: BSD-3-Clause

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mptcpd_dbus import notes
from mptcpd_dbus.core.addresses import read_address
from mptcpd_dbus.core.endpoints import Endpoint
from mptcpd_dbus.core.readings import OwnEndpointsRead
from mptcpd_dbus.core.state import State
from mptcpd_dbus.core.types import AddressFlag

_MAX_ENDPOINTS = 255  # as many as there are IDs

_log = logging.getLogger(__name__)

_Key = tuple[int, str, int]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[int, Field(ge=1, le=255)]
    address: Annotated[str, AfterValidator(lambda text: read_address("address", text))]
    port: Annotated[int, Field(ge=0, le=65535)]
    by: Annotated[str, Field(max_length=255)]


class _Note(notes.Note):
    endpoints: Annotated[list[_Entry], Field(max_length=_MAX_ENDPOINTS)]


class OwnEndpoints:
    """The endpoints that are ours, as far as the kernel still has them.

    They are in memory only until `recall` names the file.
    """

    def __init__(self, state: State, apply: Callable[[OwnEndpointsRead], object]) -> None:
        self._state = state
        self._apply = apply
        self._file: Path | None = None
        self._unwritten = False
        self._added: dict[_Key, str] = {}

    def recall(self, file: Path) -> None:
        """Take in what the daemon that ran before has noted in *file*, and note there from now."""
        self._file = file
        self._added |= _read(file)
        self._tell()
        self.forget_gone()

    def add(self, endpoint: Endpoint, by: str) -> None:
        """Note that *endpoint* is ours: added for the plugin *by*, or for nobody in particular."""
        self._added[_key(endpoint)] = by
        self._tell()

    def added_by(self, endpoint: Endpoint, name: str) -> bool:
        """Whether *endpoint* was added for the plugin *name*."""
        return endpoint.ours and self._added.get(_key(endpoint)) == name

    def forget_gone(self) -> None:
        """Forget what the kernel has no more: who has it again would be somebody else."""
        present = {
            _key(endpoint)
            for endpoint in self._state.endpoints.values()
            if not endpoint.entry.flags & AddressFlag.IMPLICIT
        }
        if not self._added.keys() <= present:
            self._added = {key: by for key, by in self._added.items() if key in present}
            self._tell()

    def _tell(self) -> None:
        self._apply(OwnEndpointsRead(frozenset(self._added)))
        if self._file is None:
            return
        try:
            _write(self._file, self._added)
        except OSError as error:
            if not self._unwritten:
                _log.warning(
                    "%s cannot be written (%s): after a restart our endpoints will be taken for"
                    " somebody else's",
                    self._file,
                    error.strerror,
                )
            self._unwritten = True
        else:
            self._unwritten = False


def _key(endpoint: Endpoint) -> _Key:
    return (endpoint.id, endpoint.entry.address, endpoint.entry.port)


def _read(file: Path) -> dict[_Key, str]:
    note = notes.read(file, _Note, "endpoints of ours are not known")
    if note is None:
        return {}
    return {(entry.id, entry.address, entry.port): entry.by for entry in note.endpoints}


def _write(file: Path, added: dict[_Key, str]) -> None:
    entries = [_Entry(id=i, address=a, port=p, by=by) for (i, a, p), by in added.items()]
    notes.write(file, _Note(namespace=notes.namespace(), endpoints=entries))
