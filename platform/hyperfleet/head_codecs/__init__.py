"""How heads cross the link: layouts, codecs, and what a device applies without blowing it up first."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
