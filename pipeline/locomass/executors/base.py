"""What an executor is: runs a function over items, in any order and in any place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from locomass.errors import ConfigError

BLAS_LIMITS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Spread:
    """A function of several arguments as one of a tuple; a class, because workers cannot be sent a lambda's scope."""

    function: Callable[..., Any]

    def __call__(self, arguments: tuple[Any, ...]) -> Any:
        """Return the function of the arguments."""
        return self.function(*arguments)


class Executor(ABC):
    """Runs a function over items in any order.

    Attributes:
        task_memory: bytes that one task may use; None when nobody set a bound.
        dashboard: address of the Dask dashboard, empty where there is none.
    """

    task_memory: float | None = None
    dashboard: str = ""

    @abstractmethod
    def run(
        self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[], None] | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]``; ``done`` is called after each."""

    def map(self, function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
        """Return ``list(map(function, *columns))``, computed where and as wide as this executor runs tasks.

        The `map_function` of predictors: their fits follow ``--threads``, and go to the workers of a cluster.

        Raises:
            ValueError: the columns have different lengths.
        """
        return self.run(Spread(function), list(zip(*columns, strict=True)))


def parse_memory(text: str) -> float:
    """Return the bytes of ``4 GB`` or ``512 MiB``.

    Raises:
        ConfigError: it is not a size.
    """
    from dask.utils import parse_bytes

    try:
        return float(parse_bytes(text))
    except ValueError:
        raise ConfigError(f"'{text}' is not a size of memory; give one such as `4 GB`") from None
