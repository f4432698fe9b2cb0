"""Experiments: what is trained for which table, one cell, what a head costs. Needs no Ray."""
