"""Sending files to a storage: a plan that is recorded first, transfers side by side, and a way back.

The plan names each target, the checksum of what comes there and of what was there. Taking it back deletes or restores
just what has the planned content: what somebody else wrote meanwhile stays.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from stepwell.pipeline.storage import Storage, checked_target, file_checksum

T = TypeVar("T")
R = TypeVar("R")

_CONNECTION_ERRORS = frozenset({"ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientError"})
"""Names of classes from which clients of object stores derive what is worth another try."""


class TransferRefused(Exception):
    """The storage holds something else; nothing was written."""


@dataclass(frozen=True)
class Patience:
    """How a transfer is tried again.

    Args:
        attempts: the first one included.
        delay: seconds before the second; doubles, jittered.
    """

    attempts: int = 1
    delay: float = 0.0


def make_plan(
    storage: Storage, files: Sequence[tuple[str, str]], *, overwrite: bool, aside: Path, also: Iterable[str] = ()
) -> dict[str, Any]:
    """Look at all targets, and say what has to be done.

    Args:
        storage: where the files go.
        files: ``(source, target)``.
        overwrite: whether other content is replaced.
        aside: local folder for what is replaced.
        also: targets that will be written besides.

    Returns:
        ``{"items": [{source, target, size, checksum, state, former, aside}], "folders": […], "also": […]}``; the state
        is ``create``, ``same`` or ``replace``.

    Raises:
        TransferRefused: targets hold other content.
    """
    items = []
    refused = []
    also = list(also)
    # Names that would leave the storage are refused here, before anything is asked of it.
    folders = list(storage.absent_folders([*(target for _, target in files), *also]))
    present: set[str] = set()
    for top in {checked_target(target).partition("/")[0] for _, target in files}:
        present.update(storage.list(top))
    for number, (source, target) in enumerate(files):
        checksum = file_checksum(source)
        item = {
            "source": source,
            "target": target,
            "size": Path(source).stat().st_size,
            "checksum": checksum,
            "state": "create",
            "former": None,
            "aside": None,
        }
        if target in present:
            former = storage.checksum(target)
            if former == checksum:
                item["state"] = "same"
            elif overwrite:
                item |= {"state": "replace", "former": former, "aside": str(aside / f"{number}.former")}
            else:
                refused.append(target)
        items.append(item)
    if refused:
        message = f"exists with different content: {', '.join(refused)}"
        raise TransferRefused(message)
    return {
        "items": items,
        "folders": folders,
        "also": also,
    }


def send(storage: Storage, item: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
    """Do one item of a plan. Returns ``{target, size, checksum, url}``. Raises what the last attempt raised."""
    if item["state"] != "same":
        patiently(lambda: _send(storage, item), patience)
    return {name: item[name] for name in ("target", "size", "checksum")} | {"url": storage.get_url(item["target"])}


def _send(storage: Storage, item: Mapping[str, Any]) -> None:
    # What is not the former content any more must not be kept as if it were: a rollback would put it back.
    missing = item["aside"] is not None and not Path(item["aside"]).exists()
    if missing and storage.checksum(item["target"]) == item["former"]:
        storage.download(item["target"], item["aside"])
    storage.upload(item["source"], item["target"])


def patiently(call: Callable[[], R], patience: Patience) -> R:
    """Call it; again after an `OSError` or an error of a connection, as often as patience lasts."""
    for attempt in range(1, patience.attempts + 1):
        try:
            return call()
        except Exception as error:
            if attempt == patience.attempts or not is_passing(error):
                raise
        time.sleep(patience.delay * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
    raise AssertionError("patience has at least one attempt")


def is_passing(error: Exception) -> bool:
    """Whether another attempt may go well."""
    if isinstance(error, FileNotFoundError):  # what is not there does not come by waiting
        return False
    return isinstance(error, OSError) or any(kind.__name__ in _CONNECTION_ERRORS for kind in type(error).__mro__)


def side_by_side(
    work: Sequence[T],
    do: Callable[[T], R],
    *,
    workers: int,
    ended: Callable[[int], None],
    stop: Callable[[], bool],
) -> tuple[list[tuple[T, R]], list[tuple[T, Exception]]]:
    """Do all of the work in threads. After an exception, or when ``stop`` says so, nothing new begins.

    Args:
        work: the pieces.
        do: what is done with each.
        workers: how many at a time.
        ended: called in this thread with the number of pieces that have ended.
        stop: asked in this thread before a piece begins.

    Returns:
        what was done with its values, and what raised, each in the order of ``work``.
    """
    rest = iter(enumerate(work))
    running: dict[Future[R], tuple[int, T]] = {}
    done: list[tuple[int, T, R]] = []
    failed: list[tuple[int, T, Exception]] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="stepwell-transfer") as pool:
        while True:
            if not failed and not stop():
                for number, piece in islice(rest, workers - len(running)):
                    running[pool.submit(copy_context().run, do, piece)] = (number, piece)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, piece = running.pop(future)
                error = future.exception()
                if isinstance(error, Exception):
                    failed.append((number, piece, error))
                else:
                    done.append((number, piece, future.result()))
                ended(len(done) + len(failed))
    done.sort(key=lambda item: item[0])
    failed.sort(key=lambda item: item[0])
    return [(piece, value) for _, piece, value in done], [(piece, error) for _, piece, error in failed]


def take_back(storage: Storage, plan: Mapping[str, Any]) -> list[str]:
    """Delete what the plan made and put back what it replaced. May be called again. Returns what could not be undone,
    as texts; what somebody else has changed meanwhile is left alone and named.
    """
    problems = []
    for item in plan.get("items", ()):
        try:
            problem = _take_back(storage, item)
        except Exception as error:
            problem = f"{item['target']}: {error}"
        if problem:
            problems.append(problem)
    for target in plan.get("also", ()):
        try:
            storage.delete(target)
        except Exception as error:
            problems.append(f"{target}: {error}")
    try:
        storage.remove_folders(plan.get("folders", ()))
    except OSError as error:
        problems.append(str(error))
    return problems


def _take_back(storage: Storage, item: Mapping[str, Any]) -> str | None:
    target, state = item["target"], item["state"]
    if state == "same":
        return None
    found = storage.checksum(target) if storage.exists(target) else None
    if state == "create":
        if found in {None, item["checksum"]}:
            storage.delete(target)
            return None
        return f"{target} was changed by somebody else and is left as it is"
    if found == item["former"]:
        return None
    if found not in {None, item["checksum"]}:
        return f"{target} was changed by somebody else and is left as it is"
    if not Path(item["aside"]).exists():
        return f"{target}: its former content is not at {item['aside']} any more"
    storage.upload(item["aside"], target)
    return None
