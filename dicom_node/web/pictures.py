"""Key images as a browser shows them."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError

from dicom_node.errors import StoreError


def picture_png(path: Path) -> bytes:
    """Return the RGB image of a Part 10 file of this node as PNG.

    Raises:
        StoreError: the file is missing, or not what this node writes.
    """
    try:
        dataset = pydicom.dcmread(path)
        shape = (int(dataset.Columns), int(dataset.Rows))
        image = Image.frombytes("RGB", shape, bytes(dataset.PixelData)[: 3 * shape[0] * shape[1]])
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        raise StoreError(
            f"the key image cannot be read ({type(error).__name__})", "check the data folder"
        ) from None
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()
