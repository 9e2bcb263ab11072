"""Reports before the Pixelmed SR validator, the judge of IHE Connectathons."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dicom_node.results.build import ResultObject, ResultRequest
from tests.interop.peers import require

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

Built = tuple[ResultRequest, list[ResultObject]]
JARS = Path("/usr/share/java")
NEEDED = ("pixelmed.jar", "commons-codec.jar")
ALLOWED = ("(121058,DCM", "719178004")
"""Its tables of context group 100 are older than the code of the procedure."""
FORMS = {
    "finding": ("full_finding", ""),
    "finding, twin": ("full_finding", "comprehensive"),
    "finding, no segmentation": ("full_finding", "no-seg"),
    "no finding": ("full_no_finding", ""),
    "not analysed": ("full_not_analysed", ""),
}


def validate(path: Path) -> list[str]:
    """What the validator says of a file, line by line."""
    java = require("java")
    if missing := [jar for jar in NEEDED if not (JARS / jar).exists()]:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install libpixelmed-java")
    logging = [jar for jar in ("slf4j-api.jar", "slf4j-nop.jar") if (JARS / jar).exists()]
    limits = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")
    done = subprocess.run(
        [java, "-Xmx3g", "-Xss64m", *(f"-Djdk.xml.{name}=0" for name in limits),
         "-cp", ":".join(str(JARS / jar) for jar in (*NEEDED, *logging)),
         "com.pixelmed.validate.DicomSRValidator", str(path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("name", FORMS)
def test_the_report_has_no_error_but_the_known_one(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture, variant = FORMS[name]
    built: Built = request.getfixturevalue(fixture)
    made = next(m for m in built[1] if (m.kind, m.variant) == ("sr", variant))
    path = tmp_path / "sr.dcm"
    path.write_bytes(made.data)
    lines = validate(path)
    assert "IOD validation complete" in "\n".join(lines), lines[-5:]
    assert any("Found Root Template TID_1500" in line for line in lines)
    errors = [line for line in lines if line.startswith("Error")]
    unknown = [line for line in errors if not all(part in line for part in ALLOWED)]
    assert unknown == []
    assert len(errors) <= 1
