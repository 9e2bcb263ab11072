"""The public PI-CAI layout: images, labels and clinical table of real examinations.

MHA archive or nnU-Net raw, label folders and marksheet as published with the PI-CAI challenge
(picai_labels, picai_prep). `ai-core simulate` writes the same layout.
"""

from ai_core.picai.layout import Archive, StudyFiles, open_archive
from ai_core.picai.marksheet import ClinicalRow, read_marksheet
from ai_core.picai.read import read_study
from ai_core.picai.splits import split_patients

__all__ = [
    "Archive",
    "ClinicalRow",
    "StudyFiles",
    "open_archive",
    "read_marksheet",
    "read_study",
    "split_patients",
]
