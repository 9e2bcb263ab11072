"""Own result objects, known by what they say about their maker. Needs no database and no highdicom.

A PACS may route every new object of a study to the node, its own results included. They must never
count as new images, even where the database was lost.
"""

from __future__ import annotations

from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME


def is_own_object(
    manufacturer: str | None,
    model_name: str | None,
    device_serial_number: str | None = None,
    installation_id: str | None = None,
) -> bool:
    """Whether an object was made by this product.

    With ``installation_id`` only objects of that installation count (its id is written as the
    Device Serial Number); without it those of every installation do: they are results as well.
    """
    same_product = (manufacturer or "").strip() == MANUFACTURER and (
        model_name or ""
    ).strip() == MODEL_NAME
    if installation_id is None:
        return same_product
    return same_product and (device_serial_number or "").strip() == installation_id
