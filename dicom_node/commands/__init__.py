"""The subcommands of `dicom-node`, one module for each subject."""
