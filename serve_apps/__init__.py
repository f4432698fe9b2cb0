"""What stays up: `serve run serve_apps:generator`, or `start` and `stop` from a program.

Names are looked up when they are first used: Serve's proxies import `header_guard` from here, and shall not
load PyTorch for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_apps.parameter_generator import GeneratorArgs as GeneratorArgs
    from serve_apps.parameter_generator import generator as generator
    from serve_apps.service import start as start
    from serve_apps.service import stop as stop

_MODULE_OF = {
    "GeneratorArgs": "serve_apps.parameter_generator",
    "generator": "serve_apps.parameter_generator",
    "start": "serve_apps.service",
    "stop": "serve_apps.service",
}

__all__ = sorted(_MODULE_OF)

# A type checker that saw this would take any name for one of ours.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULE_OF[name]), name)
