"""Result objects: DICOM Segmentation, Structured Report and key images of one analysed study.

The one way in is ``dicom_node.results.build.build_results``. ``equipment`` and ``recognise`` are
light (no highdicom) and may be used by the receiver.
"""
