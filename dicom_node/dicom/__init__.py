"""DICOM in: headers, series selection, b-values, volumes. No network, no database."""
