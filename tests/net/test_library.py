"""What the set-up of the library changes."""

from __future__ import annotations

import pytest
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_ECHO

from dicom_node.net.library import application_entity
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
