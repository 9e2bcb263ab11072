"""The measurement groups of a report (PS3.16 TID 1410, 1411, 1501).

Where the segmentations go along, two groups stand for the gland and for every finding under one
Tracking UID: one refers to the segment and carries all numbers (TID 1411), the other holds the
outline on one slice (TID 1410). Viewers merge them by the UID; a group without an outline is not
drawn. A report for destinations that take no segmentations has the outline group alone, with the
numbers on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai_core.types import CaseResult, Finding, ReleaseInfo
from dicom_node.domain.reasons import REASONS
from dicom_node.results import codes, text
from dicom_node.results.contour import graphic_data, slice_of_largest_area
from dicom_node.results.header import FrameReference, SourceImages
from dicom_node.results.remarks import not_analysed_words
from dicom_node.results.request import NotAnalysed, Psa
from dicom_node.results.seg import GLAND, LESIONS, Mask, Segment, gland_segments, lesion_segments
from dicom_node.results.uids import placeholder

NOT_ANALYSED_TRACKING = "sr/tracking"

Groups = list[
    sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
]


@dataclass(frozen=True, eq=False)
class _Statement:
    """What is said of one region."""

    numbers: list[sr.Measurement]
    evaluations: list[sr.QualitativeEvaluation]
    site: sr.FindingSite | None = None
    more_slices: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes the groups of regions; ``segmentations`` by kind, empty where none may be named."""

    sources: SourceImages
    segmentations: Mapping[str, Dataset]
    algorithm: sr.AlgorithmIdentification

    def region(self, kind: str, segment: Segment, said: _Statement) -> Groups:
        """Return the groups of one region, under one Tracking UID."""
        largest = slice_of_largest_area(segment.mask)
        with_segment = kind in self.segmentations
        groups: Groups = []
        if with_segment:
            segmentation = self.segmentations[kind]
            groups.append(
                sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    referenced_segment=_referenced_segment(segment, segmentation, self.sources),
                    measurements=said.numbers,
                    qualitative_evaluations=said.evaluations,
                    **self._about(segment, said),
                )
            )
        for z in (largest, *said.more_slices):
            numbers_here = z == largest and not with_segment
            groups.append(
                sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                    referenced_region=_region(segment.mask[z], self.sources.references[z]),
                    measurements=said.numbers if numbers_here else None,
                    qualitative_evaluations=said.evaluations if numbers_here else None,
                    **self._about(segment, said),
                )
            )
        return groups

    def _about(self, segment: Segment, said: _Statement) -> dict[str, Any]:
        return {
            "tracking_identifier": sr.TrackingIdentifier(segment.tracking_uid, segment.label),
            "finding_category": segment.category,
            "finding_type": segment.type,
            "finding_sites": [said.site] if said.site else None,
            "algorithm_id": self.algorithm,
        }


def analysed_groups(
    result: CaseResult, sources: SourceImages, segmentations: Mapping[str, Dataset],
    psa: Psa | None,
) -> Groups:  # fmt: skip
    """Return the groups of the gland and of every finding.

    ``segmentations``: those that the report may refer to, by kind, with their instance UIDs.
    """
    algorithm = _algorithm(result.release)
    writer = _Writer(sources, segmentations, algorithm)
    (gland,) = gland_segments(result)
    of_gland = _Statement(
        numbers=_gland_numbers(result, psa, algorithm),
        evaluations=_case_evaluations(result),
        more_slices=[] if result.findings else _second_slice(gland.mask),
    )
    groups = writer.region(GLAND, gland, of_gland)
    for segment, finding in zip(lesion_segments(result), result.findings, strict=True):
        of_finding = _Statement(
            numbers=_finding_numbers(finding, result.release, algorithm),
            evaluations=[_yes_no(codes.SIGNIFICANT, finding.significant)],
            site=sr.FindingSite(*codes.finding_site(finding.sector)),
        )
        groups += writer.region(LESIONS, segment, of_finding)
    return groups


def _region(mask: Mask, reference: FrameReference) -> sr.ImageRegion:
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=graphic_data(mask),
        source_image=sr.SourceImageForRegion(*_reference(reference)),
    )


def _second_slice(mask: Mask) -> list[int]:
    """Return a neighbour of the slice of largest area, where the mask reaches one.

    The Pixelmed validator takes every group of a report with exactly one outline for a planar one
    (TID 1410) and then misses outlines; so a gland that stands alone is outlined twice.
    """
    z = slice_of_largest_area(mask)
    neighbours = [k for k in (z + 1, z - 1) if 0 <= k < len(mask) and mask[k].any()]
    return neighbours[:1]


def _reference(frame: FrameReference) -> tuple[str, str, list[int] | None]:
    number = None if frame.frame_number is None else [frame.frame_number]
    return frame.sop_class_uid, frame.sop_instance_uid, number


def _referenced_segment(
    segment: Segment, segmentation: Dataset, sources: SourceImages
) -> sr.ReferencedSegment:
    """By hand: highdicom's own helper fails where a segmentation has one segment only."""
    series = str(sources.templates[0].SeriesInstanceUID)
    return sr.ReferencedSegment(
        sop_class_uid=str(segmentation.SOPClassUID),
        sop_instance_uid=str(segmentation.SOPInstanceUID),
        segment_number=segment.number,
        source_series=sr.SourceSeriesForSegmentation(series),
    )


def _algorithm(release: ReleaseInfo) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=text.ascii_text(release.name), version=text.ascii_text(release.version)
    )


def _synthesis(release: ReleaseInfo) -> sr.AlgorithmIdentification:
    """Return the second opinion of a release as an algorithm of its own."""
    return sr.AlgorithmIdentification(
        name=text.ascii_text(f"{release.name} synthesis"), version=text.ascii_text(release.version)
    )


def _number(
    name: Code,
    value: float,
    unit: Code,
    algorithm: sr.AlgorithmIdentification,
    derivation: Code | None = None,
) -> sr.Measurement:
    """Return a NUM with the algorithm as its child: OHIF fails on a NUM that has none."""
    return sr.Measurement(
        name=name, value=value, unit=unit, algorithm_id=algorithm, derivation=derivation
    )


def _suspicion(
    fraction: float, release: ReleaseInfo, algorithm: sr.AlgorithmIdentification
) -> sr.Measurement:
    name = codes.LIKELIHOOD if release.calibrated_on_real_cases else codes.SUSPICION_INDEX
    return _number(name, text.percent(fraction), codes.PERCENT, algorithm)


def _gland_numbers(
    result: CaseResult, psa: Psa | None, algorithm: sr.AlgorithmIdentification
) -> list[sr.Measurement]:
    volume_ml = round(result.gland.volume_ml, 1)
    numbers = [
        _number(codes.VOLUME, volume_ml, codes.CUBIC_CENTIMETRE, algorithm),
        _suspicion(result.case_likelihood, result.release, algorithm),
    ]
    density = text.psa_density(psa, result.gland)
    if psa is not None and density is not None:
        unit = codes.NANOGRAM_PER_MILLILITRE_PER_CUBIC_CENTIMETRE
        numbers += [_number(codes.PSA_DENSITY, density, unit, algorithm), _psa(psa)]
    return numbers


def _psa(psa: Psa) -> sr.Measurement:
    """Return the PSA; no algorithm made it, so its child says where it is from."""
    number = sr.Measurement(
        name=codes.PSA, value=psa.value_ng_ml, unit=codes.NANOGRAM_PER_MILLILITRE
    )
    number[0].ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(
                name=codes.COMMENT, value=text.ascii_text(psa.source),
                relationship_type=sr.RelationshipTypeValues.INFERRED_FROM,
            )
        ]
    )  # fmt: skip
    return number


def _finding_numbers(
    finding: Finding, release: ReleaseInfo, algorithm: sr.AlgorithmIdentification
) -> list[sr.Measurement]:
    numbers = [
        _number(codes.VOLUME, round(finding.volume_ml, 2), codes.CUBIC_CENTIMETRE, algorithm),
        _number(
            codes.LONG_AXIS, round(finding.longest_diameter_mm, 1), codes.MILLIMETRE, algorithm
        ),
        _suspicion(finding.likelihood, release, algorithm),
        _number(codes.SUSPICION_SCORE, round(finding.suspicion_score, 1), codes.SCORE, algorithm),
    ]
    if finding.mean_adc_um2_s is not None:
        adc = float(round(finding.mean_adc_um2_s))
        unit = codes.SQUARE_MICROMETRE_PER_SECOND
        numbers.append(_number(codes.ADC, adc, unit, algorithm, codes.MEAN))
    if finding.abnormality is not None:
        value = round(finding.abnormality, 2)
        numbers.append(_number(codes.ABNORMALITY, value, codes.RATIO, _synthesis(release)))
    return numbers


def _yes_no(name: Code, value: bool) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(name, codes.YES if value else codes.NO)


def _case_evaluations(result: CaseResult) -> list[sr.QualitativeEvaluation]:
    present = codes.PRESENT if result.findings else codes.ABSENT
    found = dict.fromkeys(
        codes.QUALITY_CODES[finding.code]
        for finding in result.quality
        if finding.code in codes.QUALITY_CODES
    )
    return [
        sr.QualitativeEvaluation(codes.LESION, present),
        _yes_no(codes.SIGNIFICANT, result.case_significant),
        *(sr.QualitativeEvaluation(codes.QUALITY_FINDING, code) for code in found),
    ]


# --- a study that was not analysed ------------------------------------------------------------


def not_analysed_group(outcome: NotAnalysed) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return a TID 1501 group: unlike TID 1411 it needs no region. No number, no "absent"."""
    quality = REASONS[outcome.reason].quality
    coded = [Code(quality.value, quality.scheme, quality.meaning)] if quality else []
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            placeholder(NOT_ANALYSED_TRACKING), "Not analysed"
        ),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.QUALITY_FINDING, code) for code in coded
        ]
        or None,
    )
    group[0].ContentSequence.append(remark(not_analysed_words(outcome)))
    return group


def remark(words: str) -> sr.TextContentItem:
    """Return a comment in plain words."""
    return sr.TextContentItem(
        name=codes.COMMENT,
        value=text.ascii_text(words),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
