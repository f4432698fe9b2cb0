"""Registered names of the two models of a fleet, and the alias of the newest versions."""

GENERATOR_NAME = "hyperfleet-generator"
STATIC_NAME = "hyperfleet-static"
ALIAS = "champion"
NEWEST = f"models:/{GENERATOR_NAME}@{ALIAS}"
NEWEST_STATIC = f"models:/{STATIC_NAME}@{ALIAS}"
