"""Abnormality by synthesis: what normal tissue would look like here, and how the image differs."""
