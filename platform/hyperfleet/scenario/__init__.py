"""Scenarios: devices, arrivals, drift, networks, faults and request policies of a run."""
