"""Signals that end a run: a line for people, everything put away, an exit code that says which."""

from __future__ import annotations

import signal
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)  # of a scheduler at the walltime, of a terminal that closes


class Stopped(BaseException):
    """A signal asked the program to end.

    Attributes:
        name: of the signal.
        exit_code: 128 and its number, as shells count.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number


def catch_signals() -> None:
    """Turn the first signal that ends a program into `Stopped`; a second one ends it at once.

    A signal that is ignored, as `nohup` does, stays so.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for other in ENDING:
        signal.signal(other, signal.SIG_DFL)
    raise Stopped(number)
