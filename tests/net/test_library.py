"""What the set-up of the library changes."""

from __future__ import annotations

import threading

import pytest
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_ECHO

from dicom_node.net.library import Entity, application_entity
from tests.net.conftest import NODE_AE, OpenPortWith, wait_for

VERIFICATION = "1.2.840.10008.1.1"


def test_an_answer_is_left_to_who_waits_for_it(
    open_port: OpenPortWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_port()
    entity = application_entity("PACS")
    assoc = entity.associate(
        "127.0.0.1", node.port, contexts=[build_context(VERIFICATION)], ae_title=NODE_AE
    )
    assert assoc.is_established
    answer, request = C_ECHO(), C_ECHO()
    answer.MessageIDBeingRespondedTo, request.MessageID = 1, 2
    assoc._reactor_checkpoint.clear()  # the association's own loop stands still
    wait_for(lambda: assoc._is_paused)
    assoc.dimse.msg_queue.put((1, answer))
    assert assoc.dimse.get_msg(block=False) == (None, None)  # as the loop asks
    assert assoc.dimse.get_msg(block=True) == (1, answer)  # as who sent the request asks
    monkeypatch.setattr(assoc.dimse, "peek_msg", lambda: (None, None))  # it comes after the look
    assoc.dimse.msg_queue.put((1, answer))
    assert assoc.dimse.get_msg(block=False) == (None, None)
    assert assoc.dimse.get_msg(block=True) == (1, answer)
    monkeypatch.undo()
    assoc.dimse.msg_queue.put((1, request))
    assert assoc.dimse.get_msg(block=False) == (1, request)
    assoc._reactor_checkpoint.set()
    assert assoc.send_c_echo().Status == 0
    assoc.release()


def test_a_release_waits_for_what_is_served_and_lets_nothing_more_in(
    open_port: OpenPortWith,
) -> None:
    node = open_port()
    assoc = application_entity("PACS").associate(
        "127.0.0.1", node.port, contexts=[build_context(VERIFICATION)], ae_title=NODE_AE
    )
    inbox = assoc.dimse.get_msg.__self__
    seen: list[tuple[int, bool]] = []
    first, second = C_ECHO(), C_ECHO()
    first.MessageID, second.MessageID = 1, 2

    def serve(message: C_ECHO, _context_id: int) -> None:
        assoc._is_paused = True  # as the library says while it serves
        releasing.start()
        wait_for(lambda: inbox._closed)
        assoc.dimse.msg_queue.put((1, second))
        seen.append((message.MessageID, assoc.is_released or assoc._sent_release))

    releasing = threading.Thread(target=assoc.release)
    assoc._serve_request = serve
    assoc.dimse.msg_queue.put((1, first))
    wait_for(lambda: bool(seen))
    releasing.join(60)
    assert seen == [(1, False)]
    assert assoc.is_released


def test_an_association_whose_loop_does_not_come_back_is_aborted(
    open_port: OpenPortWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_port()
    monkeypatch.setattr(Entity, "stall_s", 0.1)
    assoc = application_entity("PACS").associate(
        "127.0.0.1", node.port, contexts=[build_context(VERIFICATION)], ae_title=NODE_AE
    )
    assoc._reactor_checkpoint.clear()  # the association's own loop stands still
    wait_for(lambda: assoc._is_paused)
    assoc.release()
    assert assoc.is_aborted or assoc._sent_abort
    assert not assoc.is_alive() or not assoc.is_established
