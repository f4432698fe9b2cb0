"""Methods: how a static or a generated head is trained. One file a method, all of them listed here."""

from hyperfleet.errors import unknown_name
from hyperfleet.methods.base import Examples as Examples
from hyperfleet.methods.base import Method as Method
from hyperfleet.methods.base import Stage as Stage
from hyperfleet.methods.base import TaskModel as TaskModel
from hyperfleet.methods.base import personalizes as personalizes
from hyperfleet.methods.catalogue import METHODS as METHODS


def method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
