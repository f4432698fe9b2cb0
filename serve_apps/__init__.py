"""Ray Serve application of the generator: `serve run serve_apps:generator`, or `start` and `stop`.

Names are imported at their first use, since Serve's proxies import `ray_private` from here without PyTorch.
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

# Hidden from type checkers, which would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULE_OF[name]), name)
