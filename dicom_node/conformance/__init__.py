"""The DICOM conformance statement (PS3.2 Annex N), from the tables that the code runs on."""
