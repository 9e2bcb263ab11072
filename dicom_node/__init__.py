"""A DICOM node for prostate MRI: receives studies, analyses them, returns SEG and SR objects."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("prostate-dicom-node")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0.0.0"
