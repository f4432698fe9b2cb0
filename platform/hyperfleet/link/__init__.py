"""The link between a device and the cloud: how long bytes take."""
