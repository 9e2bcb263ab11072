"""The web console and its API: what the node holds and does, and the changes of its people."""
