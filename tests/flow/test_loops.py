"""Threads that run as long as their process: an error that nobody expected does not end them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dicom_node.config import AuditSection
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.forward import Forwarder
from dicom_node.flow.pledge import PledgeLoop
from dicom_node.worker import Worker
from tests.flow.conftest import Node

LIMIT_S = 60.0


def failing_once() -> tuple[Callable[[], int], threading.Event]:
    """A round that fails the first time, and what is set at the second."""
    calls: list[int] = []
    again = threading.Event()

    def act() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        again.set()
        return 0

    return act, again


def test_pledges_are_answered_after_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, stop = PledgeLoop(node.store, node.config, node.clock), threading.Event()
    act, again = failing_once()
    monkeypatch.setattr(loop, "answer_once", act)
    runs_until_stopped(lambda: loop.run(stop), again, stop)


def test_records_are_forwarded_after_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = AuditSection(syslog_host="127.0.0.1", syslog_ca="none.pem")
    config = node.config.model_copy(update={"audit": audit})
    loop, stop = Forwarder(node.store, config, node.clock), threading.Event()
    act, again = failing_once()
    monkeypatch.setattr(loop, "forward_due", act)
    runs_until_stopped(lambda: loop.run(stop), again, stop)


def runs_until_stopped(
    run: Callable[[], None], again: threading.Event, stop: threading.Event
) -> None:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert again.wait(LIMIT_S)
    finally:
        stop.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_audit_records_are_written_after_an_error(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(node.store, node.config, node.clock)
    act, again = failing_once()
    monkeypatch.setattr(trail, "flush", act)
    trail.start()
    assert again.wait(LIMIT_S)
    trail.close()


def test_the_worker_ends_whole_so_that_it_is_started_anew(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(node.config, node.store, node.clock)
    monkeypatch.setattr(worker._child, "start", lambda: None)

    def fail(_stop: threading.Event) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(worker, "_work_once", fail)
    stop, raised = threading.Event(), threading.Event()

    def run() -> None:
        with pytest.raises(RuntimeError, match="a bug"):
            worker.run(stop)
        raised.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        assert raised.wait(LIMIT_S), "a thread of it lives on"
    finally:
        stop.set()
