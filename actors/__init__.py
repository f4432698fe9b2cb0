"""Ray processes that hold state: hosts of emulated devices and the fleet that runs them."""
