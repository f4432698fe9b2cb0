"""Every table of both papers, printed numbers beside measured ones."""
