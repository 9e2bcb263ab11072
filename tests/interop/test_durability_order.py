"""The order of G1 as the kernel sees it: system calls of the receiver, traced with strace.

`TRACED_INSTANCES` (60) changes the size.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, outgoing, send
from tests.interop.peers import require
from tests.net.conftest import wait_for, write_instance
from tests.running import ReceiverUnderTest

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

INSTANCES = int(os.environ.get("TRACED_INSTANCES", "60"))
ASSOCIATIONS = 3
CALLS = "pwritev,pwritev2,fdatasync,fsync,syncfs,rename,renameat,renameat2,sendto,pwrite64"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))")


@dataclass(frozen=True)
class Call:
    """A system call: where in the trace it began and ended, and its arguments as strace wrote."""

    thread: str
    name: str
    arguments: str
    begun: int
    ended: int

    @property
    def worked(self) -> bool:
        return " = -1 " not in self.arguments


def read_trace(path: Path) -> list[Call]:
    calls: list[Call] = []
    open_calls: dict[str, tuple[str, str, int]] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, resumed, rest, name, arguments = found.groups()
        if resumed:
            name, first, begun = open_calls.pop(thread)
            calls.append(Call(thread, name, first + rest, begun, number))
        elif arguments.endswith("<unfinished ...>"):
            open_calls[thread] = (name, arguments, number)
        else:
            calls.append(Call(thread, name, arguments, number, number))
    return sorted(calls, key=lambda call: call.begun)


def log_of(call: Call) -> str:
    found = re.search(r"journal/(\w+)\.log", call.arguments)
    return found.group(1) if found else ""


def acknowledgements_out_of_order(calls: list[Call]) -> tuple[int, list[Call]]:
    """Answers of C-STORE, and those without a sync of the log between its record and it."""
    written: dict[str, Call] = {}
    acknowledged, wrong = 0, []
    syncs = [call for call in calls if call.name == "fdatasync" and call.worked and log_of(call)]
    for call in calls:
        if call.name.startswith("pwritev") and "PDNREC1" in call.arguments:
            written[call.thread] = call
        elif call.name == "sendto" and r', "\4\0' in call.arguments and call.thread in written:
            record = written.pop(call.thread)
            acknowledged += 1
            if not any(
                log_of(sync) == log_of(record)
                and record.ended < sync.begun
                and sync.ended < call.begun
                for sync in syncs
            ):
                wrong.append(call)
    return acknowledged, wrong


def answering_processes(calls: list[Call]) -> set[frozenset[str]]:
    """The logs that the records were written to, by the logs of one receiver.

    A log belongs to one receiver: threads that wrote to a log in common are of one process.
    """
    groups: list[tuple[set[str], set[str]]] = []
    for call in calls:
        if not call.name.startswith("pwritev") or "PDNREC1" not in call.arguments:
            continue
        threads, logs = {call.thread}, {log_of(call)}
        for group in [one for one in groups if one[0] & threads or one[1] & logs]:
            groups.remove(group)
            threads |= group[0]
            logs |= group[1]
        groups.append((threads, logs))
    return {frozenset(logs) for _, logs in groups}


def rows_before_their_files(calls: list[Call]) -> tuple[int, list[Call]]:
    """Files put into the spool, and commits of the database with none synced before."""
    waiting: dict[str, int] = {}
    named, wrong = 0, []
    for call in calls:
        if call.name.startswith("rename") and "/spool/" in call.arguments:
            waiting[call.thread] = waiting.get(call.thread, 0) + 1
            named += 1
        elif call.name == "syncfs" and call.worked:
            waiting.pop(call.thread, None)
        elif (
            call.name in ("fsync", "fdatasync")
            and "node.sqlite3" in call.arguments
            and waiting.get(call.thread)
        ):
            wrong.append(call)
    return named, wrong


@pytest.mark.parametrize("receivers", [1, 2])
def test_G1_no_answer_before_its_sync_and_no_row_before_its_file(
    tmp_path: Path, receivers: int
) -> None:
    trace = tmp_path / "trace"
    receiver = ReceiverUnderTest(tmp_path / "node", receivers=receivers)
    strace = [require("strace"), "-D", "-f", "-y", "-s", "24", "-e", f"trace={CALLS}"]
    receiver.start(*strace, "-o", str(trace))
    ended = re.compile(rf"^{receiver.pid} +\+\+\+ exited with 0", re.MULTILINE)
    files = [write_instance(tmp_path, kilobytes=64) for _ in range(INSTANCES)]
    to = Address("PROSTATE_AI", "127.0.0.1", receiver.port)
    sent: list[Outcome] = []

    def send_share(number: int) -> None:
        share = [outgoing(path) for path in files[number::ASSOCIATIONS]]
        sent.extend(status.outcome for status in send(to, share, calling_ae="PACS"))

    senders = [threading.Thread(target=send_share, args=(n,)) for n in range(ASSOCIATIONS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    receiver.stop()
    wait_for(lambda: ended.search(trace.read_text(errors="replace")), limit_s=60)
    assert sent == [Outcome.SENT] * INSTANCES
    calls = read_trace(trace)
    acknowledged, wrong = acknowledgements_out_of_order(calls)
    assert (acknowledged, wrong) == (INSTANCES, [])
    named, early = rows_before_their_files(calls)
    assert (named, early) == (INSTANCES, [])
    assert len(answering_processes(calls)) == receivers
    print(f"\n{acknowledged} answers, {named} files and rows traced, 0 out of order")


def test_the_check_of_the_order_sees_a_wrong_one() -> None:
    record = Call("1", "pwritev", '4</n/journal/ab.log>, [{"PDNREC1"}]', 0, 0)
    answer = Call("1", "sendto", r'6<TCP>, "\4\0\0"', 3, 3)
    sync = Call("2", "fdatasync", "4</n/journal/ab.log>) = 0", 1, 2)
    assert acknowledgements_out_of_order([record, sync, answer]) == (1, [])
    for bad in (
        Call("2", "fdatasync", "4</n/journal/ab.log>) = -1 EIO", 1, 2),
        Call("2", "fdatasync", "4</n/journal/cd.log>) = 0", 1, 2),
        Call("2", "fdatasync", "4</n/journal/ab.log>) = 0", 1, 4),
    ):
        assert acknowledgements_out_of_order([record, bad, answer]) == (1, [answer])
