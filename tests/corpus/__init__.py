"""Saved answers of each version of the format, with the figures that a reader must find in them.

`python -m tests.corpus` writes those of the present version; those of a version that was released stay as they are.
"""
