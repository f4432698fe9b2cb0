"""What stays up: `serve run serve_apps:generator`, or `start` and `stop` from a program."""

from serve_apps.parameter_generator import GeneratorArgs as GeneratorArgs
from serve_apps.parameter_generator import generator as generator
from serve_apps.service import start as start
from serve_apps.service import stop as stop
