"""One discrete-event loop decides everything that has a time; see docs/decisions/0010."""
