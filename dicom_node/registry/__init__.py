"""Which release of the model runs: keys, the shelf of releases, rules, switching."""
