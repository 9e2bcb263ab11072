"""The node at a glance."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request

from dicom_node import __version__
from dicom_node.store.times import iso
from dicom_node.web.api.access import Viewer
from dicom_node.web.api.shapes import (
    DestinationShape,
    ModelUse,
    Passed,
    ProcessShape,
    SenderShape,
    SignShape,
    StatusShape,
    StorageShape,
)
from dicom_node.web.console import console_of
from dicom_node.web.overview_view import overview

router = APIRouter(tags=["status"])


@router.get("/status")
def status(request: Request, _caller: Viewer) -> StatusShape:
    """Return what the node holds and does, and whether it is well."""
    console = console_of(request)
    found = overview(console)
    told = {key: found.status[key] for key in ("time", "held", "revisions", "deliveries",
                                              "oldest_unfinished_s")}  # fmt: skip
    return StatusShape(
        ae_title=console.config.node.ae_title, version=__version__, **told,
        storage=StorageShape(**found.storage),
        last_hour=Passed(**asdict(found.hour)), last_day=Passed(**asdict(found.day)),
        health=[SignShape(**asdict(sign)) for sign in found.signs],
        senders=[
            SenderShape(
                ae_title=one.calling_ae, study_uid=one.study_uid, received_at=iso(one.received_at_s)
            )
            for one in found.senders
        ],
        destinations=[
            DestinationShape(name=one.name, ae_title=one.ae_title, **one.counts)
            for one in found.destinations
        ],
        processes=[ProcessShape(**one) for one in found.processes],
        alarms=len(found.alarms),
        models=[ModelUse(**asdict(one)) for one in found.models],
    )  # fmt: skip
