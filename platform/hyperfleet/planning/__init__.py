"""Sizing a deployment: replicas, bandwidth, and the queue model fitted to the measured service."""
