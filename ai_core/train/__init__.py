"""Training: gland, localization, classification, joint; then calibration and the release."""
