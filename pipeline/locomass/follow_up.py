"""Follow-up of people: when each came under observation, when it ended, and whether by an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FollowUp:
    """Follow-up of n people; a person is at risk at time t where ``entry < t <= exit``.

    Attributes:
        entry: (n,) when they came under observation, -inf where they always were (left truncation).
        exit: (n,) when they had the event, or were censored; NaN where nothing is known.
        event: (n,) whether the event ended it.
        stratum: (n,) number of the group whose baseline hazard they share.
    """

    entry: NDArray[np.float64]
    exit: NDArray[np.float64]
    event: NDArray[np.bool_]
    stratum: NDArray[np.int64]

    def take(self, chosen: Any) -> FollowUp:
        """Return the follow-up of chosen people, a boolean mask or their numbers."""
        return FollowUp(self.entry[chosen], self.exit[chosen], self.event[chosen], self.stratum[chosen])

    @property
    def person_time(self) -> float:
        """Observed time of everybody, in the unit of the times: from entry (0 without one) to exit."""
        return float((self.exit - np.where(np.isfinite(self.entry), self.entry, 0.0)).sum())
