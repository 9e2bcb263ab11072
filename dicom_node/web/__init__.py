"""Status pages: what the node holds and does, read-only, in a browser."""
