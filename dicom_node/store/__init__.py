"""The database of the node: the only package with SQL."""
