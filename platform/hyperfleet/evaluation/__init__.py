"""Scores of fleet runs, their tables and figures, and the reports that people read.

Labels enter here and nowhere else between a device and its answer.
"""
