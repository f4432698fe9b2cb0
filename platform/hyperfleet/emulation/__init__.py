"""Devices, link and cloud together: one request, what is recorded of it, and a fleet in a plain loop."""
