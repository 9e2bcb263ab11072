"""`ai-core` again and again, each time in a forked process that is killed or the disk refuses.

One JSON object a line on stdin: ``argv``; ``kill_at``: SIGKILL before the file of this number
(from 1) appears under its name; ``largest``: no file may get larger (bytes); ``log``: file for what
it prints. Answers with the exit status, negative for a signal.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

# All of the command is imported here, once, before any computation: forks start at once.
import ai_core.adapt.commands
import ai_core.adapt.run  # noqa: F401
from ai_core import cli


def _kill_at(number: int) -> None:
    count, replace = 0, Path.replace

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = counted  # type: ignore[assignment, method-assign]


def _live(order: dict[str, Any]) -> int:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    if order.get("kill_at"):
        _kill_at(order["kill_at"])
    if order.get("largest"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], resource.RLIM_INFINITY))
    sys.argv = order["argv"]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main() -> None:
    """Run lives until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                status = _live(json.loads(line))
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
