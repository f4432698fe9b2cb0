"""Scoring a fleet run: accuracy, cost and latency, their tables, and the report people read.

Labels enter here and nowhere else on the way from a device to its answer.
"""
