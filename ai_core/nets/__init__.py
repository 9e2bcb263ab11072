"""The networks: gland finder, localizer, classifier with suspicion head."""
