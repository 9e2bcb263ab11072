"""What an operator does to a study: look at it anew, release it, send its results again.

Command line, console and API call these; each stands in the audit trail.
"""

from __future__ import annotations

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.errors import WrongUseError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.peers import find_peer
from dicom_node.store.store import Store


def retry_study(store: Store, config: NodeConfig, study_uid: str) -> str:
    """Try a study again that failed, is held, was not analysable, or was not delivered.

    Returns what was done, in plain words.

    Raises:
        NodeError: the study is unknown, or there is nothing to retry.
    """
    done = store.retry(study_uid)
    _record(store, config, study_uid, f"retry: {done}")
    return done


def send_again(store: Store, config: NodeConfig, study_uid: str, peer: str | None = None) -> str:
    """Send the results of a study again, to one destination or to all it was sent to.

    Returns what was done, in plain words.

    Raises:
        ConfigError: there is no such peer, or it receives no results.
        NodeError: the study is unknown, or there is nothing to send again.
    """
    if peer is not None and not find_peer(store, config, peer).receives_results:
        raise WrongUseError(f"peer '{peer}' receives no results", "choose a destination")
    number = store.send_again(study_uid, peer)
    objects = "1 object is" if number == 1 else f"{number} objects are"
    done = f"{objects} sent again" + (f" to {peer}" if peer else "")
    _record(store, config, study_uid, done)
    return done


def _record(store: Store, config: NodeConfig, study_uid: str, what: str) -> None:
    trail = AuditTrail(store, config, SystemClock())
    trail.study_changed(study_uid, what)
    trail.flush()
