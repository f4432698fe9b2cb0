"""The link between a device and the cloud: how long bytes take, and the client that asks for heads."""
