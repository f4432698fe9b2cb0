"""The networks: All-in-One encoder, device model, and the parts of head generators."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
