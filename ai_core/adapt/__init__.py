"""From a release to one for a site (deployment optimisation; claim 13, paragraph 6)."""
