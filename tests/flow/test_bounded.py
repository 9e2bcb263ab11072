"""A look at a disk that hangs costs one thread and an answer in time."""

from __future__ import annotations

import threading

import pytest

from dicom_node.flow.bounded import Bounded


def test_an_answer_and_an_error_come_through() -> None:
    assert Bounded(lambda: 3)() == 3

    def wrong() -> int:
        raise PermissionError(13, "no")

    with pytest.raises(PermissionError):
        Bounded(wrong)()


def test_while_a_look_hangs_no_other_is_begun() -> None:
    release, looks = threading.Event(), []

    def hang() -> str:
        looks.append(threading.current_thread())
        release.wait()
        return "back"

    look = Bounded(hang, limit_s=0.01)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            look()
    assert len(looks) == 1
    release.set()
    looks[0].join()
    assert Bounded(hang)() == "back"
    assert look() == "back"
