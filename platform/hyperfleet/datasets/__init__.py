"""Data sets: annotations, videos, the clip store made from them, and the devices that hold them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
