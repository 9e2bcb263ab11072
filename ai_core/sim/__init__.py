"""Procedural simulator of multi-parametric prostate MRI: anatomy, lesions, tissue physics, sites.

No image data of any patient enters it. Anatomy is a set of implicit shapes in patient
millimetres, so one simulated patient can be rendered on any grid; see ``raster`` and ``study``.
"""
