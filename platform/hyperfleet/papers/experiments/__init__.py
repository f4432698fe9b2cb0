"""Experiments behind the tables: the plan, one cell, and the cost of a head. No Ray needed."""
