"""Table of named values that are made when they are first used."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from hyperfleet.errors import unknown_name

Value = TypeVar("Value")


class LazyTable(Mapping[str, Value]):
    """Read-only mapping whose names are known before what makes the values is imported.

    Args:
        kind: what the names are called in errors.
        makers: function per name; it is called with the name.
    """

    def __init__(self, kind: str, makers: Mapping[str, Callable[[str], Value]]) -> None:
        self._kind, self._makers = kind, makers
        self._made: dict[str, Value] = {}

    def named(self, name: str) -> Value:
        """Return the value called `name`.

        Raises:
            UnknownNameError: see `check`.
        """
        self.check(name)
        return self[name]

    def check(self, name: str) -> None:
        """Refuse a name that is not in the table, without making its value.

        Raises:
            UnknownNameError: the name is not in the table; the message lists those that are.
        """
        if name not in self._makers:
            raise unknown_name(self._kind, name, self._makers)

    def __getitem__(self, name: str) -> Value:
        if name not in self._made:
            self._made[name] = self._makers[name](name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
