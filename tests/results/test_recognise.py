"""Own objects are known by their header alone; the check is light."""

from __future__ import annotations

import io
import subprocess
import sys

import pydicom
import pytest

from dicom_node.results.build import ResultObject, ResultRequest
from dicom_node.results.recognise import is_own_object


def test_every_result_object_is_recognised(
    stack_finding: tuple[ResultRequest, list[ResultObject]],
) -> None:
    for made in stack_finding[1]:
        header = pydicom.dcmread(io.BytesIO(made.data), stop_before_pixels=True)
        equipment = (header.Manufacturer, header.ManufacturerModelName, header.DeviceSerialNumber)
        assert is_own_object(*equipment)
        assert is_own_object(*equipment, installation_id="test-installation")
        assert not is_own_object(*equipment, installation_id="another")


@pytest.mark.parametrize("maker", [(None, None), ("", ""), ("SIEMENS", "Skyra")])
def test_others_are_not_own(maker: tuple[str | None, str | None]) -> None:
    assert not is_own_object(*maker)


def test_recognising_loads_no_heavy_library() -> None:
    code = (
        "import sys, dicom_node.results.recognise;"
        "print(sorted({'highdicom','torch','numpy','PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
