"""Training methods for static and generated heads: one file per method, all of them in the catalogue."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
