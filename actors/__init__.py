"""Ray processes with state: hosts of emulated devices, their pool, and the board of a training run."""
