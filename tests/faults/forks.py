"""Starts a receiver by fork, everything imported before: a program that takes orders on stdin.

``CONFIG_FILE``; each line of stdin is an order: ``start`` forks a receiver and tells its pid, the
receiver then announces its port as the process of a node does; ``reap`` waits for its end and
tells the status. A kill every tenth of a second needs no interpreter to be started for each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# what a receiver imports when it runs; nothing of it starts a thread or opens a file
import dicom_node.flow.audit
import dicom_node.flow.ingest
import dicom_node.net.receiver
import dicom_node.receivers
import dicom_node.store.store  # noqa: F401
from dicom_node.config import load_config
from dicom_node.errors import NodeError
from dicom_node.logs import start_logging
from dicom_node.roles import die_with_parent, run_receiver


def tell(message: dict[str, object]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def serve(config_file: Path) -> None:
    """Be the receiver; never returns."""
    status = 1
    try:
        die_with_parent()
        start_logging("receiver")
        run_receiver(load_config(config_file), {}, tell)
        status = 0
    except (NodeError, OSError) as error:
        tell({"error": str(error)})
    finally:
        os._exit(status)


def main(config_file: Path) -> None:
    """Take orders until stdin closes."""
    pid = 0
    while order := sys.stdin.readline().strip():
        if order == "start":
            pid = os.fork()
            if pid == 0:
                os.close(sys.stdin.fileno())
                serve(config_file)
            tell({"pid": pid})
        else:
            _, status = os.waitpid(pid, 0)
            tell({"status": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
