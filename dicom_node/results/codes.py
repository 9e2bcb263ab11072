"""The codes that result objects use, pinned: value, coding scheme, meaning.

Context groups are of PS3.16. A test compares every standard code with the tables of pydicom.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from ai_core.types import Quality
from dicom_node.domain.reasons import REASONS
from dicom_node.results.equipment import CODING_SCHEME, NOT_A_PROBABILITY

# CID 7150, 7151, 6300, 4031
LESION = Code("52988006", "SCT", "Lesion")
PROSTATE = Code("41216001", "SCT", "Prostate")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
PERIPHERAL_ZONE = Code("279706003", "SCT", "Peripheral zone of the prostate")
TRANSITION_ZONE = Code("399384005", "SCT", "Transition zone of the prostate")
RIGHT = Code("24028007", "SCT", "Right")
LEFT = Code("7771000", "SCT", "Left")

# CID 7021, 100, 7162
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
MP_MRI_OF_PROSTATE = Code("719178004", "SCT", "Multiparametric MRI of prostate")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source (attribute)")
DEVICE = Code("121007", "DCM", "Device")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

# CID 7472, 7469, 7464
VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
ADC = Code("113041", "DCM", "Apparent Diffusion Coefficient")
MEAN = Code("373098007", "SCT", "Mean")

# CID 6352
PSA = Code("2857-1", "LN", "Prostate Cancer Antigen")
PSA_DENSITY = Code("15325-4", "LN", "Prostate specific Antigen Density")

# CID 7010, 7011
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
DOCUMENT_TITLE_MODIFIER = Code("113011", "DCM", "Document Title Modifier")
OTHER_FAILURE = Code("111220", "DCM", "Other failure")

# CID 240, 230
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")

# TID 1501, CID 6314-6318
COMMENT = Code("121106", "DCM", "Comment")
QUALITY_FINDING = Code("111052", "DCM", "Quality Finding")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COVERAGE_INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
B_VALUE_MISSING = Code("130583", "DCM", "Expected b-value is missing")
POOR_SNR = Code("130578", "DCM", "Poor SNR")

# CID 7181
CUBIC_CENTIMETRE = Code("cm3", "UCUM", "cubic centimeter")
MILLIMETRE = Code("mm", "UCUM", "mm")
SQUARE_MICROMETRE_PER_SECOND = Code("um2/s", "UCUM", "um2/s")
NANOGRAM_PER_MILLILITRE = Code("ng/mL", "UCUM", "ng/mL")
NANOGRAM_PER_MILLILITRE_PER_CUBIC_CENTIMETRE = Code("ng/mL/cm3", "UCUM", "ng/mL/cm3")
RATIO = Code("1", "UCUM", "no units")
PERCENT = Code("%", "UCUM", "Percent")
SCORE = Code("{score}", "UCUM", "score")

# The product's own concepts; no standard code says "clinically significant cancer".
SUSPICION_INDEX = Code("AI-SUSPICION", CODING_SCHEME, NOT_A_PROBABILITY)
LIKELIHOOD = Code("CSPCA-LIK", CODING_SCHEME, "Likelihood of csPCa")
SUSPICION_SCORE = Code("AI-SCORE", CODING_SCHEME, "AI suspicion score (1 to 5)")
ABNORMALITY = Code(
    "AI-ABNORMALITY", CODING_SCHEME, "Difference from synthesised normal tissue, in its spread"
)
SIGNIFICANT = Code("AI-SIGNIFICANT", CODING_SCHEME, "Marked as clinically significant by the AI")

STANDARD = tuple(
    code
    for code in list(globals().values())
    if isinstance(code, Code)
    and code.scheme_designator not in (CODING_SCHEME, "UMLS")
    and not code.value.startswith(("{", "ng/"))  # UCUM units that no context group lists
)
"""Every code above that a public table defines."""

QUALITY_CODES = {
    Quality.GLAND_CUT_OFF: COVERAGE_INCOMPLETE,
    Quality.DIFFUSION_COVERAGE: COVERAGE_INCOMPLETE,
    Quality.HIGH_B_MISSING: B_VALUE_MISSING,
    Quality.LOW_SNR: POOR_SNR,
}
"""Quality findings that have a standard code; the others are told in words only."""

# CID 6304, sector map of PI-RADS v2.1: zone/position/level/side
_SECTORS = """
PZ/a/base/L 716905002 Left anterior basal peripheral zone of prostate
PZ/pl/base/L 716907005 Left posterolateral basal peripheral zone of prostate
PZ/pm/base/L 836427009 Left posteromedial basal peripheral zone of prostate
PZ/a/base/R 716904003 Right anterior basal peripheral zone of prostate
PZ/pl/base/R 716906001 Right posterolateral basal peripheral zone of prostate
PZ/pm/base/R 836428004 Right posteromedial basal peripheral zone of prostate
PZ/a/mid/L 716920008 Left anterior middle peripheral zone of prostate
PZ/pl/mid/L 716922000 Left posterolateral middle peripheral zone of prostate
PZ/pm/mid/L 716924004 Left posteromedial middle peripheral zone of prostate
PZ/a/mid/R 716919002 Right anterior middle peripheral zone of prostate
PZ/pl/mid/R 716921007 Right posterolateral middle peripheral zone of prostate
PZ/pm/mid/R 716923005 Right posteromedial middle peripheral zone of prostate
PZ/a/apex/L 716937001 Left anterior apical peripheral zone of prostate
PZ/pl/apex/L 716939003 Left posterolateral apical peripheral zone of prostate
PZ/pm/apex/L 716941002 Left posteromedial apical peripheral zone of prostate
PZ/a/apex/R 716936005 Right anterior apical peripheral zone of prostate
PZ/pl/apex/R 716938006 Right posterolateral apical peripheral zone of prostate
PZ/pm/apex/R 716940001 Right posteromedial apical peripheral zone of prostate
TZ/a/base/L 716897000 Left anterior basal transition zone of prostate
TZ/p/base/L 716899002 Left posterior basal transition zone of prostate
TZ/a/base/R 716896009 Right anterior basal transition zone of prostate
TZ/p/base/R 716898005 Right posterior basal transition zone of prostate
TZ/a/mid/L 716914007 Left anterior middle transition zone of prostate
TZ/p/mid/L 716916009 Left posterior middle transition zone of prostate
TZ/a/mid/R 716913001 Right anterior middle transition zone of prostate
TZ/p/mid/R 716915008 Right posterior middle transition zone of prostate
TZ/a/apex/L 716931000 Left anterior apical transition zone of prostate
TZ/p/apex/L 716933002 Left posterior apical transition zone of prostate
TZ/a/apex/R 716930004 Right anterior apical transition zone of prostate
TZ/p/apex/R 716932007 Right posterior apical transition zone of prostate
AS/-/base/L 716893001 Left basal anterior fibromuscular stroma of prostate
AS/-/base/R 716892006 Right basal anterior fibromuscular stroma of prostate
AS/-/mid/L 716910003 Left middle anterior fibromuscular stroma of prostate
AS/-/mid/R 716909008 Right middle anterior fibromuscular stroma of prostate
AS/-/apex/L 716927006 Left apical anterior fibromuscular stroma of prostate
AS/-/apex/R 716926002 Right apical anterior fibromuscular stroma of prostate
CZ/-/-/L 716901006 Central zone of left half prostate
CZ/-/-/R 716900007 Central zone of right half prostate
SV/-/-/L 42320003 Left seminal vesicle
SV/-/-/R 74308000 Right seminal vesicle
US/-/-/- 717027004 Male external urethral sphincter
"""


def _sectors() -> dict[str, Code]:
    table = {}
    for line in _SECTORS.strip().splitlines():
        key, value, meaning = line.split(" ", 2)
        table[key] = Code(value, "SCT", meaning)
    return table


SECTORS = _sectors()
"""The 41 sectors of PI-RADS v2.1 by key (``PZ/pl/mid/R``)."""

# Names of content items and purposes of reference (PS3.16 Annex D), written by highdicom
_STRUCTURE = """
DCM 109101 Acquisition Equipment
DCM 111001 Algorithm Name
DCM 111003 Algorithm Version
DCM 111030 Image Region
DCM 112039 Tracking Identifier
DCM 112040 Tracking Unique Identifier
DCM 112187 Unspecified method of calculation
DCM 113012 Key Object Description
DCM 113076 Segmentation
DCM 121005 Observer Type
DCM 121012 Device Observer UID
DCM 121013 Device Observer Name
DCM 121014 Device Observer Manufacturer
DCM 121015 Device Observer Model Name
DCM 121016 Device Observer Serial Number
DCM 121049 Language of Content Item and Descendants
DCM 121058 Procedure reported
DCM 121071 Finding
DCM 121191 Referenced Segment
DCM 121232 Source Series for Segmentation
DCM 121233 Source image for segmentation
DCM 121322 Source image for image processing operation
DCM 121401 Derivation
DCM 125007 Measurement Group
DCM 126010 Imaging Measurements
SCT 246205007 Quantity
SCT 260753009 Source
SCT 276214006 Finding category
SCT 272741003 Laterality
SCT 363698007 Finding Site
RFC5646 en-US English (United States)
"""


def _pinned() -> dict[tuple[str, str], frozenset[str]]:
    found = [tuple(line.split(" ", 2)) for line in _STRUCTURE.strip().splitlines()]
    of_reasons = [text.quality for text in REASONS.values() if text.quality]
    found += [(code.scheme, code.value, code.meaning) for code in of_reasons]
    own = [code for code in globals().values() if isinstance(code, Code)]
    found += [
        (code.scheme_designator, code.value, code.meaning)
        for code in (*own, *SECTORS.values(), *QUALITY_CODES.values())
    ]
    table: dict[tuple[str, str], frozenset[str]] = {}
    for scheme, value, meaning in found:
        table[value, scheme] = table.get((value, scheme), frozenset()) | {meaning}
    return table


PINNED = _pinned()
"""Every code that may stand in a result object: its meanings by value and scheme."""

_ZONES = {"PZ": PERIPHERAL_ZONE, "TZ": TRANSITION_ZONE}
_SIDES = {"R": RIGHT, "L": LEFT}


def finding_site(sector: str) -> tuple[Code, Code | None]:
    """Code of a sector key, and a laterality where the code itself has none.

    A key that is not in the sector map gets the coarser truth: its zone, else the prostate.
    """
    if sector in SECTORS:
        return SECTORS[sector], None
    parts = sector.split("/")
    return _ZONES.get(parts[0], PROSTATE), _SIDES.get(parts[-1])
