"""HyperFleet: personalized heads, generated in the cloud, for a fleet of devices."""
