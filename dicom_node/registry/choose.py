"""Which release analyses a study, and which one shadows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ai_core import packaged_release
from dicom_node.config import NodeConfig
from dicom_node.domain.assignment import ImageOrigin, choose
from dicom_node.domain.states import ReleaseState
from dicom_node.errors import RegistryError
from dicom_node.registry.shelf import RunnableRelease, folder_of, runnable, runnable_folder
from dicom_node.store.rows import InstanceRow
from dicom_node.store.store import Store


def release_for(
    config: NodeConfig, store: Store, origins: Callable[[], Collection[ImageOrigin]]
) -> RunnableRelease:
    """Return the release that analyses a study whose images have these origins.

    ``origins`` is asked only where there are rules to choose from.

    Raises:
        RegistryError: the release that is due may not run. No other one takes its place.
    """
    if config.model.release:
        return runnable_folder(config, Path(config.model.release))
    rules = store.rules()
    rule = choose(rules, origins() if len(rules) > 1 else ())
    rows = {row.id: row for row in store.releases()}
    if rule is None or rule.release_id not in rows:
        raise RegistryError("no rule names a release for this study", "see dicom-node models rules")
    return runnable(config, rows[rule.release_id])


def release_without_registry(config: NodeConfig) -> RunnableRelease:
    """Return the release where there is no database: that of the file, else the packaged one.

    Raises:
        RegistryError: it may not run.
    """
    if config.model.release:
        return runnable_folder(config, Path(config.model.release))
    return RunnableRelease(*packaged_release())


def shadow_for(config: NodeConfig, store: Store, active_sha256: str) -> RunnableRelease | None:
    """Return the release that runs beside the active one; None: none does.

    Raises:
        RegistryError: there is one, and it may not run.
    """
    for row in store.releases():
        if row.state is ReleaseState.SHADOW and folder_of(config, row)[1] != active_sha256:
            return runnable(config, row)
    return None


def origins_of(instances: Iterable[InstanceRow]) -> set[ImageOrigin]:
    """Return where the images of a study come from."""
    found = set()
    for row in instances:
        if row.role == "image":
            header = json.loads(row.header_json)
            station, protocol = header.get("station", ""), header.get("protocol_name", "")
            found.add(ImageOrigin(row.calling_ae, station, protocol))
    return found


def database_exists(config: NodeConfig) -> bool:
    """Whether this configuration has a database already."""
    return bool(config.node.database) or (config.node.data_dir / "node.sqlite3").exists()
