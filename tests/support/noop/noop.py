"""The provisioner's own frame around phases that do nothing: for any engine, any kind, in a second.

Handshake, reports, heartbeat, SIGTERM, exit codes and termination message are the provisioner's code; only what would
touch a cluster is left out. What else shall happen stands as words in the store's name, so that it can be ordered
through the API as well: a store called ``shop hold=5 end=retryable:1``. Words without a meaning are part of the name;
an unknown ``word=`` ends the process with code 1 and a traceback.

==================  ==================================================================================================
word                what happens
==================  ==================================================================================================
``at=PHASE``        the phase in which the words below act, and no other; unless said ``release``, and ``remove`` for
                    delete and cleanup
``hold=SECONDS``    the phase lasts so long; SIGTERM or a cancel ends it as it ends any phase
``end=retryable``   the phase fails, exit code 10
``end=permanent``   the phase fails, exit code 20
``exit=CODE``       the process is gone in mid-phase with this code: no report, no message
``silent``          as ``exit=0``
``oom``             takes memory until it is killed; ``oom:1`` only while the container's limit is below 700 Mi
``mute``            after the handshake nothing reaches the database; the termination message tells the end
``late=SECONDS``    so long before the handshake; SIGTERM ends it with exit code 10 and nothing else
==================  ==================================================================================================

``hold`` comes first, then the others in the table's order. Each word but ``oom`` may end in ``:N``: only in attempts
up to number N. Words are parted by spaces.
"""

import os
import signal
import sys
import time
from contextlib import suppress

from provisioner_job.__main__ import provision
from provisioner_job.contract import PHASES_BY_KIND, ExitCode
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, NoReturn

    from provisioner_job.database import Call
    from provisioner_job.work import Facts, Phase, Work

__all__ = ["Words", "main"]

_VALUED = ("at", "hold", "end", "exit", "late")
_FLAGS = ("silent", "mute")
_LIMIT_SECONDS = 3600.0
_SMALL_BYTES = 700 * 2**20
_CHUNK_BYTES = 16 * 2**20
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Words:
    """The words of one store's name that hold for one attempt.

    Raises
    ------
    ValueError
        A ``word=`` is unknown.
    """

    def __init__(self, name: str, attempt: int) -> None:
        self._found: dict[str, str] = {}
        for part in name.split():
            body, _, limit = part.partition(":")
            word, equals, value = body.partition("=")
            if equals and word not in _VALUED:
                message = f"{part!r} is no word the no-op image knows"
                raise ValueError(message)
            if word == "oom" and not equals:
                self._found[word] = limit
            elif word in (_VALUED if equals else _FLAGS) and (not limit or attempt <= int(limit)):
                self._found[word] = value

    def get(self, word: str, default: str = "") -> str:
        return self._found.get(word, default)

    def seconds(self, word: str) -> float:
        return float(self._found.get(word) or 0)

    def __contains__(self, word: str) -> bool:
        return word in self._found


def main() -> None:
    """Do as the environment's store name says and end with the provisioner's exit code."""
    environment = os.environ
    words = Words(environment.get("STORE_NAME", ""), int(environment.get("ATTEMPT", "1")))
    if "late" in words:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.RETRYABLE))
        time.sleep(words.seconds("late"))
    if "mute" in words:
        Session.call = _unheard  # type: ignore[method-assign, assignment]  # the frame shall believe that it was heard
    sys.exit(provision(environment, phases_of=_phases_of(words)))


def _unheard(_session: Session, *calls: "Call") -> "list[Any]":
    return [{"go_on": True} if "heartbeat" in statement else True for statement, _ in calls]


def _phases_of(words: Words) -> "Callable[[str], tuple[Phase, ...]]":
    def phases_of(kind: str) -> "tuple[Phase, ...]":
        from provisioner_job.work import Phase  # noqa: PLC0415 -- after the handshake, as in the provisioner itself

        names = PHASES_BY_KIND[kind]
        where = words.get("at") or ("release" if "release" in names else names[-1])
        return tuple(Phase(name, _LIMIT_SECONDS, _act(words) if name == where else _nothing) for name in names)

    return phases_of


async def _nothing(_work: "Work") -> "Facts":
    return {}


def _act(words: Words) -> "Callable[[Work], Coroutine[Any, Any, Facts]]":
    async def act(work: "Work") -> "Facts":
        import asyncio  # noqa: PLC0415 -- as above

        if "hold" in words:
            work.journal.say("holding", seconds=words.seconds("hold"))
            await asyncio.sleep(words.seconds("hold"))
        if words.get("end") == "retryable":
            raise RetryableError("NOOP_RETRYABLE", "Told to fail for now", work.given.store_name)
        if words.get("end") == "permanent":
            raise PhaseError("NOOP_PERMANENT", "Told to fail for good", work.given.store_name)
        if "exit" in words or "silent" in words:
            os._exit(int(words.get("exit") or 0))
        if "oom" in words and (words.get("oom") == "" or _memory_limit() < _SMALL_BYTES):
            _take_all_memory()
        return {}

    return act


def _memory_limit() -> int:
    for file in _MEMORY_LIMITS:
        # The other version's file is not there; "max" is no number.
        with suppress(OSError, ValueError), open(file, encoding="ascii") as limit:  # noqa: PTH123 -- quick to start
            return int(limit.read())
    return sys.maxsize


def _take_all_memory() -> "NoReturn":
    taken = []
    while True:
        # Filled, because untouched pages take nothing.
        taken.append(bytearray(b"\1") * _CHUNK_BYTES)


if __name__ == "__main__":
    main()
