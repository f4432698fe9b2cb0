"""The link between a device and the cloud: transfer times and radio energy."""
