"""Loggers of contexts and steps, and lines beside the step (durable.md §15, §13 P7)."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from typing import Any

import pytest

from stepwell.durable import _capture
from stepwell.durable._capture import LIMIT, StepLines, install, text_of
from stepwell.durable.logger import Logger, current_sink
from stepwell.serde import Redactor, current_redactor

EXTRA = {"run_id": "r1", "key": "etl/load", "attempt": 2}


class Kept(logging.Handler):
    """Keeps records, and what a formatter makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.shown.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    run = logging.getLogger("stepwell.run")
    run.addHandler(handler)
    run.setLevel(logging.DEBUG)
    yield handler
    run.removeHandler(handler)
    run.setLevel(logging.NOTSET)


@pytest.fixture
def lines() -> Iterator[StepLines]:
    before = logging.getLogRecordFactory()
    install()
    sink = StepLines()
    token = current_sink.set(sink)
    yield sink
    current_sink.reset(token)
    logging.setLogRecordFactory(before)


class Foreign:
    """A logger that is none of `logging`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object, tuple[object, ...], Mapping[str, object] | None]] = []

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self.calls.append(("debug", msg, args, extra))

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self.calls.append(("info", msg, args, extra))

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self.calls.append(("warning", msg, args, extra))

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self.calls.append(("error", msg, args, extra))

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self.calls.append(("exception", msg, args, extra))


def secret(text: str = "sesame") -> Redactor:
    redactor = Redactor()
    redactor.feed(text)
    return redactor


def fail() -> None:
    raise ValueError("sesame is wrong")


def test_records_know_their_place_and_their_caller(kept: Kept) -> None:
    logger = Logger(EXTRA)
    for method in (logger.debug, logger.info, logger.warning, logger.error):
        method("%s of %d", "one", 2)
    assert [record.levelno for record in kept.records] == [10, 20, 30, 40]
    for record in kept.records:
        assert (record.run_id, record.key, record.attempt) == ("r1", "etl/load", 2)
        assert record.getMessage() == "one of 2"
        assert record.args == ("one", 2)
        assert record.filename == "test_logger.py"
        assert record.funcName == "test_records_know_their_place_and_their_caller"
        assert record.name == "stepwell.run"


def test_the_users_extra_wins(kept: Kept) -> None:
    Logger(lambda: EXTRA).info("x", extra={"key": "mine", "more": 1})
    assert (kept.records[0].key, kept.records[0].more, kept.records[0].run_id) == ("mine", 1, "r1")


def test_lines_of_a_context_that_replays_are_dropped(kept: Kept, lines: StepLines) -> None:
    replaying = True
    logger = Logger(EXTRA, is_replaying=lambda: replaying)
    logger.info("quiet")
    logger.with_is_replaying(lambda: False).info("loud")
    replaying = False
    logger.info("awake")
    assert kept.shown == ["loud", "awake"]
    assert [text for _, text, _ in lines.lines] == ["loud", "awake"]


def test_exceptions(kept: Kept, lines: StepLines) -> None:
    logger = Logger(EXTRA)
    try:
        fail()
    except ValueError:
        logger.exception("load %s", "failed")
    logger.exception("none is handled")  # noqa: LOG004
    assert kept.shown[0].startswith("load failed\nTraceback")
    assert kept.shown[0].endswith("ValueError: sesame is wrong")
    assert kept.shown[1] == "none is handled"
    assert [text for _, text, _ in lines.lines] == kept.shown


def test_secrets_never_reach_a_handler(kept: Kept, lines: StepLines) -> None:
    logger = Logger({**EXTRA, "key": "sesame"}, redactor=secret())
    logger.info("open %s", "sesame", extra={"word": ["sesame"]})
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    assert (kept.records[0].msg, kept.records[0].args) == ("open ***", ())
    assert (kept.records[0].key, kept.records[0].word) == ("***", ["***"])
    assert kept.records[1].exc_info is None
    assert "ValueError: *** is wrong" in kept.shown[1]
    assert "sesame" not in repr([vars(record) for record in kept.records])
    assert "sesame" not in repr(lines.lines)


def test_without_secrets_records_keep_their_arguments(kept: Kept) -> None:
    Logger(EXTRA, redactor=Redactor()).info("open %s", "sesame")
    assert kept.records[0].args == ("sesame",)


def test_any_object_can_be_the_backend(lines: StepLines) -> None:
    backend = Foreign()
    logger = Logger(EXTRA).with_backend(backend)
    logger.warning("a %s", "b")
    try:
        fail()
    except ValueError:
        logger.exception("c")
    assert backend.calls == [("warning", "a %s", ("b",), EXTRA), ("exception", "c", (), EXTRA)]
    assert [level for level, _, _ in lines.lines] == [30, 40]


def test_secrets_never_reach_a_backend_of_the_user() -> None:
    backend = Foreign()
    logger = Logger(EXTRA, backend=backend, redactor=secret())
    logger.info("open %s", "sesame")
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    assert backend.calls[0] == ("info", "open ***", (), EXTRA)
    method, message, args, _ = backend.calls[1]
    assert (method, args) == ("error", ())
    assert "ValueError: *** is wrong" in str(message)
    assert "sesame" not in repr(backend.calls)


# Beside the step


def test_a_steps_own_lines_are_kept_from_info_up_whatever_the_level_of_the_backend(lines: StepLines) -> None:
    logging.getLogger("stepwell.run").setLevel(logging.ERROR)
    try:
        logger = Logger(EXTRA)
        logger.debug("no")
        logger.info("yes")
    finally:
        logging.getLogger("stepwell.run").setLevel(logging.NOTSET)
    assert [(level, text) for level, text, _ in lines.lines] == [(20, "yes")]


def test_lines_of_any_logger_are_kept_once_and_in_order(kept: Kept, lines: StepLines) -> None:
    theirs = logging.getLogger("tests.theirs")
    theirs.setLevel(logging.DEBUG)
    theirs.debug("no")
    theirs.info("1 %s", "first")
    Logger(EXTRA).info("2")
    theirs.warning("3 %(x)s", {"x": "mapped"})
    try:
        fail()
    except ValueError:
        theirs.exception("4")
    texts = [text for _, text, _ in lines.lines]
    assert texts[:3] == ["1 first", "2", "3 mapped"]
    assert texts[3].startswith("4\nTraceback")
    assert len(texts) == 4
    assert all(abs(at - lines.lines[0][2]) < 60 for _, _, at in lines.lines)


def test_nothing_is_kept_outside_a_step(lines: StepLines) -> None:
    token = current_sink.set(None)
    logging.getLogger("tests.theirs").error("outside")
    current_sink.reset(token)
    assert lines.lines == ()


def test_lines_of_a_thread_are_the_steps_if_it_has_its_context(lines: StepLines) -> None:
    def work(text: str) -> None:
        logging.getLogger("tests.theirs").error(text)

    mine = threading.Thread(target=copy_context().run, args=(work, "mine"))
    other = threading.Thread(target=work, args=("other",))
    for thread in (mine, other):
        thread.start()
        thread.join()
    assert [text for _, text, _ in lines.lines] == ["mine"]


def test_secrets_in_lines_of_any_logger_are_masked_where_they_are_kept(lines: StepLines) -> None:
    token = current_redactor.set(secret())
    logging.getLogger("tests.theirs").error("open %s", "sesame")
    current_redactor.reset(token)
    assert [text for _, text, _ in lines.lines] == ["open ***"]


def test_one_mebibyte_is_kept_and_then_counted() -> None:
    lines = StepLines()
    lines(20, "é" * (LIMIT // 2), 0.0)
    lines(20, "x", 0.0)
    lines(20, "", 0.0)
    assert (len(lines.lines), lines.dropped) == (1, 2)


def test_installing_twice_keeps_lines_once_and_a_new_factory_is_wrapped(lines: StepLines) -> None:
    install()
    logging.getLogger("tests.theirs").error("one")
    made: list[logging.LogRecord] = []

    def mine(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        made.append(record)
        return record

    logging.setLogRecordFactory(mine)
    install()
    logging.getLogger("tests.theirs").error("two")
    assert [text for _, text, _ in lines.lines] == ["one", "two"]
    assert len(made) == 1


def test_configuring_logging_later_works_as_ever(lines: StepLines) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = []
    try:
        logging.basicConfig(stream=sys.stderr)
        assert len(root.handlers) == 1
    finally:
        root.handlers[:] = before


class Strange:
    """Cannot be shown; and logs when asked to."""

    def __str__(self) -> str:
        logging.getLogger("tests.theirs").error("from inside")
        raise RuntimeError("no")

    __repr__ = __str__


def test_strange_messages_do_no_harm(lines: StepLines) -> None:
    logging.getLogger("tests.theirs").handlers[:] = [logging.NullHandler()]
    logging.getLogger("tests.theirs").propagate = False
    try:
        logging.getLogger("tests.theirs").error("%d", "no number")
        logging.getLogger("tests.theirs").error("%s", Strange())
    finally:
        logging.getLogger("tests.theirs").handlers[:] = []
        logging.getLogger("tests.theirs").propagate = True
    assert [text for _, text, _ in lines.lines] == [
        "%d ('no number',)",
        "<a message that cannot be formatted: RuntimeError>",
    ]
    assert text_of("%s", ("a", "b")) == "%s ('a', 'b')"
    assert text_of(3, ()) == "3"


def test_public_names() -> None:
    assert _capture.__all__ == sorted(_capture.__all__)
    assert Logger.__module__ == "stepwell.durable.logger"
