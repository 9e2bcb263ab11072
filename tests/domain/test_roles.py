"""Which processes live, and which are missed."""

from __future__ import annotations

from dicom_node.domain.roles import ALIVE_S, ProcessRow, alive, missing

NOW_S = 1000.0


def row(role: str, host: str = "one", seen_s: float = NOW_S, started_s: float = 0.0) -> ProcessRow:
    return ProcessRow(f"{role}{host}{started_s}", role, host, 1, "1", started_s, seen_s)


ALL = [row("receiver"), row("worker"), row("delivery")]


def test_what_was_seen_lately_lives() -> None:
    rows = [*ALL, row("worker", "two"), row("web", seen_s=NOW_S - ALIVE_S - 1)]
    assert alive(rows, NOW_S) == {"receiver": 1, "worker": 2, "delivery": 1, "web": 0}
    assert alive([], NOW_S) == {"receiver": 0, "worker": 0, "delivery": 0}
    ahead = row("worker", seen_s=NOW_S + 5)
    assert alive([ahead], NOW_S)["worker"] == 1, "another host's clock is a little ahead"


def test_a_role_without_a_process_is_missing() -> None:
    assert missing(ALL, NOW_S, 60) == []
    assert missing(ALL[:2], NOW_S, 60) == ["delivery"]


def test_a_host_that_went_without_a_word_is_missing_until_it_is_back() -> None:
    lost = row("worker", "two", NOW_S - 61)
    assert missing([*ALL, lost], NOW_S, 60) == ["worker on two"]
    back = row("worker", "two", started_s=NOW_S - 50)
    assert missing([*ALL, lost, back], NOW_S, 60) == []
    assert missing([row("receiver"), row("delivery"), lost], NOW_S, 60) == ["worker on two"]
