"""The suspicion map as a Parametric Map of floats on the T2W grid (PS3.3 A.75).

Floats on purpose: viewers were seen to draw an integer map with a real world value mapping as one
flat area.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from ai_core.types import CaseResult
from dicom_node.domain.profile import ResultKind
from dicom_node.results import codes
from dicom_node.results.equipment import CREATOR_NAME, MANUFACTURER, MODEL_NAME
from dicom_node.results.header import SourceImages, image_verbatim
from dicom_node.results.request import ResultRequest
from dicom_node.results.seg import fix_dimensions, keep_lossy, stack_for
from dicom_node.results.series import SERIES, instance_role, series_description, series_role
from dicom_node.results.uids import Draft, placeholder, without_times

KIND = ResultKind.PARAMETRIC_MAP


def draft_map(result: CaseResult, request: ResultRequest, sources: SourceImages) -> Draft:
    """Return the fused localization map (0 to 1) of a result as a Parametric Map."""
    calibrated = result.release.calibrated_on_real_cases
    quantity = codes.LIKELIHOOD if calibrated else codes.SUSPICION_INDEX
    values = np.clip(result.likelihood, 0.0, 1.0).astype(np.float32)
    dataset = hd.pm.ParametricMap(
        source_images=list(sources.templates),
        pixel_array=stack_for(sources, values),
        series_instance_uid=placeholder(series_role(KIND)),
        series_number=SERIES[KIND].number,
        sop_instance_uid=placeholder(instance_role(KIND)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=request.software_version,
        device_serial_number=request.installation_id,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label="AI_INDEX", lut_explanation=quantity.meaning, unit=codes.RATIO,
                value_range=(0.0, 1.0), slope=1.0, intercept=0.0, quantity_definition=quantity,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_MAP",
        content_description=SERIES[KIND].description,
        content_creator_name=CREATOR_NAME,
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        series_description=series_description(KIND, request),
    )  # fmt: skip
    without_times(dataset)
    dataset.BodyPartExamined = "PROSTATE"
    dimensions = f"{KIND}/dimensions"
    fix_dimensions(dataset, placeholder(dimensions))
    keep_lossy(dataset, sources)
    return Draft(
        KIND, dataset, image_verbatim(sources), (instance_role(KIND), series_role(KIND), dimensions)
    )
