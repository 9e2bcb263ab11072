"""The log says where something went wrong, never the value that it went wrong with."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import logging, threading, warnings
from dicom_node.logs import guard_tracebacks, start_logging
start_logging("test")
guard_tracebacks()
log = logging.getLogger("dicom_node.test")
warnings.warn("Invalid value for VR DA: 'KANARI'")
try:
    raise ValueError("KANARI") from KeyError("KANARI")
except ValueError:
    log.exception("could not be read")
def fail():
    raise RuntimeError("KANARI")
thread = threading.Thread(target=fail); thread.start(); thread.join()
class Broken:
    def __del__(self):
        raise OSError("KANARI")
del_me = Broken(); del del_me
raise SystemError("KANARI")
"""


def test_no_value_reaches_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False
    )
    assert "KANARI" not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == [
        "warning", "could not be read", "uncaught error", "uncaught error", "uncaught error",
    ]  # fmt: skip
    kinds = ["ValueError", "RuntimeError", "OSError", "SystemError"]
    assert [line["error"] for line in lines[1:]] == kinds
    assert all(line["trace"] for line in lines[1:])
    assert done.returncode == 1


_WARNING_OFTEN = """
import warnings
from dicom_node.logs import start_logging
start_logging("test")
for number in range(1000):
    warnings.warn(f"Invalid value for VR DA: '{number}'")
print(sum(isinstance(key, tuple) for key in __warningregistry__))
"""


def test_G5_a_warning_that_quotes_values_is_told_once_and_not_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WARNING_OFTEN], capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.strip() == "0"
