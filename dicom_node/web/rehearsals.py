"""Rehearsals before a release is activated, each in a child process: they need torch.

At most one runs; the last few are remembered until they are committed or the process ends.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from dicom_node.config import NodeConfig
from dicom_node.errors import NodeError, RegistryError
from dicom_node.registry.switch import PreparedSwitch
from dicom_node.supervisor import PARENT_ENV, inherited_lock

log = logging.getLogger(__name__)

LIMIT_S = 900.0
_KEPT = 20


@dataclass
class Rehearsal:
    """A switch that was prepared, and what the phantom showed. ``proof`` None: it still runs."""

    switch: PreparedSwitch
    by: str
    proof: list[tuple[str, str]] | None = None
    problem: str = ""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def running(self) -> bool:
        """Whether there is no outcome yet."""
        return self.proof is None and not self.problem


class Rehearsals:
    """Runs `dicom_node.rehearse` in children, on the configuration of this process."""

    def __init__(self, config: NodeConfig) -> None:
        self._config_json = config.model_dump_json(by_alias=True)
        self._all: OrderedDict[str, Rehearsal] = OrderedDict()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._closed = False

    def begin(self, switch: PreparedSwitch, by: str) -> Rehearsal:
        """Begin the rehearsal of a prepared switch.

        Raises:
            NodeError: another one runs.
        """
        with self._lock:
            if any(one.running for one in self._all.values()):
                raise NodeError("another rehearsal runs", "wait until it has ended")
            made = Rehearsal(switch, by)
            self._all[made.key] = made
            while len(self._all) > _KEPT:
                self._all.popitem(last=False)
        threading.Thread(target=self._run, args=[made], name="rehearsal", daemon=True).start()
        return made

    def find(self, key: str) -> Rehearsal | None:
        """Return a rehearsal by its key."""
        with self._lock:
            return self._all.get(key)

    def spend(self, key: str) -> Rehearsal:
        """Take a rehearsal that succeeded; it allows one switch.

        Raises:
            RegistryError: there is none, it runs, or it failed.
        """
        with self._lock:
            found = self._all.get(key)
            if found is None or found.proof is None:
                raise RegistryError("this release was not rehearsed", "begin with Check")
            return self._all.pop(key)

    def close(self) -> None:
        """End what runs."""
        self._closed = True
        if self._child is not None:
            self._child.kill()

    def _run(self, made: Rehearsal) -> None:
        try:
            made.proof = self._ask_child(made.switch)
        except NodeError as error:
            made.problem = str(error)
        except Exception:
            log.exception("a rehearsal failed")
            made.problem = "the rehearsal failed; see the log of the web process"

    def _ask_child(self, switch: PreparedSwitch) -> list[tuple[str, str]]:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.rehearse", switch.release.sha256],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, PARENT_ENV: str(os.getpid())}, pass_fds=inherited_lock(),
        )  # fmt: skip
        if self._closed:
            self._child.kill()
        try:
            out, _ = self._child.communicate(self._config_json, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            raise RegistryError(
                f"the phantom took longer than {LIMIT_S:.0f} s", "look at the load of the machine"
            ) from None
        try:
            told = json.loads(out)
        except ValueError:
            raise RegistryError(
                f"the rehearsal ended with status {self._child.returncode}",
                "try dicom-node models activate",
            ) from None
        if told["problem"]:
            raise RegistryError(told["problem"])
        return [(what, value) for what, value in told["proof"]]
