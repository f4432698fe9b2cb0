"""Devices, link and cloud together: answers, timeline, real-time runs and the log of a run."""
