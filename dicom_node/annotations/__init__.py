"""Reads what people store about the node's findings: SEG, SR, key objects. Pure; NumPy and pydicom.

Runs in processes that load neither the model's libraries nor highdicom.
"""
