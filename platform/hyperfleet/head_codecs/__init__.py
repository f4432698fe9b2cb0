"""Head codecs: layouts, encodings for the link, and the formula that applies received heads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
