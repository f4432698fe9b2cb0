"""Data sets: annotations, videos, the clip store made of them, and the devices they are spread over."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
