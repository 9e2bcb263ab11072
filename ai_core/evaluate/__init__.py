"""Figures of a release on labelled cases: detection, outlines, calibration, with intervals."""
