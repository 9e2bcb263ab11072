"""Runs `dicom-node` for shells of a test, in forks of one process that has imported it.

A page of documentation holds dozens of commands, and starting Python with its imports costs a
second of processor time each. The program that the shells find under that name hands its arguments,
folder, environment and open files over, and ends with the status of the fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

PRELOADED = (
    "dicom_node.commands.process", "dicom_node.conformance.statement", "dicom_node.doctor",
    "dicom_node.flow.peers", "dicom_node.registry.switch", "dicom_node.store.store",
    "dicom_node.net.sender",
)  # fmt: skip
_CLIENT = """#!/usr/bin/python3 -SE
import json, os, socket, sys
if sys.argv[1:2] == ["serve"]:
    os.execv({python!r}, [{python!r}, "-m", "dicom_node", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as line:
    line.connect({path!r})
    told = [sys.argv[1:], os.getcwd(), dict(os.environ)]
    socket.send_fds(line, [b"."], [0, 1, 2])
    line.sendall(json.dumps(told).encode() + b"\\n")
    answer = line.recv(1)
sys.exit(answer[0] if answer else 70)
"""


PRELUDE = """
set -euo pipefail
dicom-node() {
    if [ "${1:-}" != serve ]; then command dicom-node "$@"; return; fi
    command dicom-node "$@" > serve.log 2>&1 &
    until grep -qx ready serve.log; do
        kill -0 $! || { cat serve.log >&2; return 1; }
        sleep 0.2
    done
}
ended() { local status=$?; kill $(jobs -p) 2> kill.log || true; wait || true; exit $status; }
trap ended EXIT
"""
"""A node that a script serves runs beside its other commands, and ends with it."""
LIMIT_S = 240


class CommandServer:
    """A folder for PATH whose `dicom-node` is served by a process of this object."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        path = folder / "socket"
        program = folder / "dicom-node"
        program.write_text(_CLIENT.format(python=sys.executable, path=str(path)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        core = folder / "ai-core"
        core.write_text(f'#!/bin/sh\nexec {sys.executable} -m ai_core.cli "$@"\n')
        core.chmod(core.stat().st_mode | stat.S_IXUSR)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_server", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def shell(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a script of commands in a folder; questions are answered with y."""
        answers = folder / "answers"
        answers.write_text("y\n" * 9)
        with answers.open() as stream:
            return subprocess.run(
                ["bash", "-c", PRELUDE + script], cwd=folder, stdin=stream, capture_output=True,
                text=True, check=False, timeout=LIMIT_S,
                env={
                    **os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}",
                    "OMP_NUM_THREADS": "2", "NO_PROXY": "*",
                },
            )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.terminate()
        self._process.wait(60)
        self._process.stdin.close()
        self._process.stdout.close()


def _serve_one(line: socket.socket) -> None:
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as reader:
        arguments, folder, environment = json.loads(reader.readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dicom-node", *arguments]
    from dicom_node.cli import main

    status = 0
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        status = 70
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    line.sendall(bytes([status]))


def _run(path: str) -> None:
    for module in PRELOADED:
        __import__(module)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            line, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                try:
                    _serve_one(line)
                finally:
                    os._exit(0)
            line.close()


if __name__ == "__main__":
    _run(sys.argv[1])
