"""The public data sets as they are released, read and checked: files in, `OfficialData` out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
