"""The canary of the path: a synthetic study goes the way of every study and must come back.

The packaged phantom is sent by C-STORE, under new UIDs and as a test patient, to the node's own
port; queue, model, encoding, gate and delivery treat it like any other. Its results go to
``canary.to`` alone, and count in no statistics.
"""

from __future__ import annotations

import ipaddress
import logging
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from pydicom import DataElement, Dataset, dcmread

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.canary import (
    CanaryRun,
    Judgement,
    RunState,
    derived_uid,
    judge,
    study_uid_of,
)
from dicom_node.domain.retention import CANARY_ISSUER
from dicom_node.domain.roles import ALIVE_S
from dicom_node.errors import DeliveryError, NodeError
from dicom_node.flow.peers import canary_peer
from dicom_node.net.access import PEERS_FRESH_S
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Outgoing, outgoing, send
from dicom_node.phantom import packaged_study
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

PATIENT_NAME = "CANARY^TEST PATIENT"
_OWN_UIDS = "2.25."
"""Root of the UIDs that the phantom has of its own; those of the standard begin otherwise."""
_POLL_S = 0.5

_CLOCKS_DIFFER_S = 60.0
"""At most, between who began a run and who looks after it."""


class PathCanary:
    """Sends canaries and sees what becomes of them.

    ``in_background``: how the sending is started that nobody waits for.
    """

    def __init__(
        self, store: Store, config: NodeConfig, clock: Clock,
        in_background: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._config = config
        self._clock = clock
        self._in_background = in_background or _in_thread

    def turn(self) -> None:
        """See what became of the one that goes on; send the next where it is time."""
        going_on = self._store.canary_going_on()
        if going_on is not None:
            self.settle(going_on)
        elif self._due():
            run = self.begin(scheduled=True)
            self._in_background(lambda: self.send(run))

    def run_once(self) -> CanaryRun:
        """Send one now and wait until it is back, or lost.

        Raises:
            NodeError: another one goes on, or the database refused.
        """
        run = self.begin(scheduled=False)
        self.send(run)
        while self.settle(run) is RunState.RUNNING:
            self._clock.sleep(_POLL_S)
        return next(one for one in self._store.canary_runs() if one.id == run.id)

    def begin(self, *, scheduled: bool) -> CanaryRun:
        """Write down that one begins: from now on its sender is let in.

        Raises:
            NodeError: another one goes on, or the database refused.
        """
        uid = study_uid_of(self._store.installation_id(), uuid.uuid4().hex)
        run = self._store.canary_begin(uid, scheduled=scheduled)
        log.info("canary begins", extra={"run": run.id, "scheduled": scheduled})
        return run

    def send(self, run: CanaryRun) -> None:
        """Send the study of a run; where that fails, the run has failed."""
        try:
            self._clock.sleep(2 * PEERS_FRESH_S)  # the receivers read their peers anew
            self._send(run)
        except (NodeError, OSError) as error:
            problem = error.message if isinstance(error, NodeError) else str(error.strerror)
            self._end(run, Judgement(RunState.FAILED, f"it was not sent: {problem}"))

    def settle(self, run: CanaryRun) -> RunState:
        """See what became of a run, and write it down where it is over."""
        age_s = self._clock.now_s() - run.started_at_s
        found = judge(
            self._store.canary_seen(run.study_uid), to=self._config.canary.to,
            in_time=-_CLOCKS_DIFFER_S <= age_s < 60 * self._config.canary.limit_min,
        )  # fmt: skip
        known = next((one for one in self._store.canary_runs(5) if one.id == run.id), run)
        if known.state is not RunState.RUNNING:
            return known.state
        if found.state is not RunState.RUNNING:
            self._end(run, found)
        return found.state

    def _end(self, run: CanaryRun, judgement: Judgement) -> None:
        self._store.canary_end(run, judgement)
        told = {"run": run.id, "state": judgement.state, "found": judgement.message}
        log.info("canary ended", extra=told)  # one that is lost is an alarm, which is logged too

    def _due(self) -> bool:
        every_s = 3600 * self._config.canary.every_h
        last = next(iter(self._store.canary_runs(1)), None)
        if not every_s:
            return False
        return last is None or not 0 <= self._clock.now_s() - last.started_at_s < every_s

    def _send(self, run: CanaryRun) -> None:
        target = self._target()
        with tempfile.TemporaryDirectory(prefix="node-canary-") as folder:
            files = write_canary(Path(folder), run.study_uid, self._config.canary.patient_id)
            statuses = send(
                target, files, calling_ae=self._config.canary.ae_title, tls=self._config.tls
            )
        wrong = [one for one in statuses if one.outcome is not Outcome.SENT]
        if wrong:
            raise DeliveryError(f"{len(wrong)} of {len(files)} images refused: {wrong[0].detail}")

    def _target(self) -> PeerConfig:
        """Return the port of the node that the canary goes to."""
        settings, node = self._config.canary, self._config.node
        peer = canary_peer(self._config)
        host, ports = settings.host, {"port": settings.port, "tls_port": settings.port}
        if not host:
            bind = self._config.tls.bind or node.bind if peer.tls else node.bind
            host, ports = _reached(bind), self._ports_here()
        port = ports.get("tls_port" if peer.tls else "port")
        if not port:
            raise DeliveryError(
                "no receiver runs on this machine", "start the node, or set canary.host and port"
            )
        return peer.model_copy(update={"ae_title": node.ae_title, "host": host, "port": port})

    def _ports_here(self) -> dict[str, int]:
        now_s, here = self._clock.now_s(), self._store.host_name()
        living = [
            row for row in self._store.processes()
            if row.role == "receiver" and row.age_s(now_s) <= ALIVE_S
        ]  # fmt: skip
        rows = [row for row in living if row.host == here]
        if rows or not living:
            return max(rows, key=lambda row: row.started_at_s).ports if rows else {}
        # a part of another name may receive on this machine: at the ports of the configuration
        node, tls = self._config.node, self._config.tls
        return {"port": node.port, "tls_port": tls.port if tls.enabled else 0}


def write_canary(folder: Path, study_uid: str, patient_id: str) -> list[Outgoing]:
    """Write the packaged phantom as the study of a canary; returns its files in sending order."""
    found = []
    for number, file in enumerate(sorted(packaged_study().rglob("*.dcm"))):
        dataset = dcmread(file)
        _rename(dataset, study_uid)
        dataset.PatientID = patient_id
        dataset.IssuerOfPatientID = CANARY_ISSUER  # by which retention knows it
        dataset.PatientName = PATIENT_NAME
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        found.append(outgoing(path))
    if not found:
        raise NodeError("the packaged study is missing", "install the project again")
    return found


def _rename(dataset: Dataset, study_uid: str) -> None:
    """Give a data set the UIDs of a canary, references included."""
    original = str(dataset.StudyInstanceUID)

    def new(value: str) -> str:
        if not value.startswith(_OWN_UIDS):
            return value
        return study_uid if value == original else derived_uid(study_uid, value)

    def visit(_dataset: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and element.VM == 1:
            element.value = new(str(element.value))
        elif element.VR == "UI" and element.VM > 1:
            element.value = [new(str(value)) for value in element.value]

    dataset.walk(visit)


def _reached(bind: str) -> str:
    """Return the address at which a port bound to an address is reached from this machine."""
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        return bind
    if not address.is_unspecified:
        return bind
    return "127.0.0.1" if address.version == 4 else "::1"


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="canary", daemon=True).start()
