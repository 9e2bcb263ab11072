"""Draws the key image "Against synthesised normal tissue" of one examination.

    python tools/synthesis_picture.py --real T2W_FOLDER ADC_FOLDER HIGH_B_FOLDER --high-b 1000 \
        --release RELEASE --out docs/images/synthesis.png

The series are folders of DICOM files of one series each; the release has a synthesis branch.
Prints what the branch says as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ai_core import analyse, load_release
from ai_core.geometry import lps_of_index
from ai_core.types import Case, DwiVolume, Geometry, Volume
from dicom_node.results.request import Analysed, KeyImageVolumes
from dicom_node.results.triptych import triptych


def series(folder: Path) -> Volume:
    """Read the only series of a folder."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    d = image.GetDirection()
    geometry = Geometry(
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), (d[0:3], d[3:6], d[6:9])
    )
    return Volume(sitk.GetArrayFromImage(image), geometry)


def main() -> None:
    """Analyse, draw, and say in numbers what is drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", nargs=3, type=Path, required=True)
    parser.add_argument("--high-b", type=float, required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    t2w, adc, high_b = (series(folder) for folder in options.real)
    case = Case(t2w, adc, 1.0, high_b=DwiVolume(high_b, options.high_b))
    result = analyse(case, load_release(options.release, "cpu"))
    said = result.synthesis
    if said is None:
        raise SystemExit(f"{options.release} has no synthesis branch")
    peak = None
    if said.abnormality is not None:
        z, y, x = np.unravel_index(int(said.abnormality.argmax()), said.abnormality.shape)
        peak = [round(v, 1) for v in lps_of_index(result.geometry, (float(z), float(y), float(x)))]
    numbers = {
        "credible": said.abnormality is not None,
        "peak_lps_mm": peak,
        "typical": round(said.typical, 3),
        "limit": round(said.limit, 3),
        "findings": [
            {"sector": f.sector, "likelihood": round(f.likelihood, 3), "abnormality": f.abnormality}
            for f in result.findings
        ],
        "timings_s": {name: round(value, 2) for name, value in result.timings_s.items()},
    }
    print(json.dumps(numbers, indent=1))  # noqa: T201 - what this program is for
    drawn = triptych(Analysed(result, KeyImageVolumes(t2w, adc, high_b)))
    if drawn is None:
        raise SystemExit("there is nothing to draw: synthesis abstains")
    drawn[0].save(options.out)


if __name__ == "__main__":
    main()
