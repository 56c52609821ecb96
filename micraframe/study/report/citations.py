"""Numbered references, and the citations that belong to no component."""

from __future__ import annotations

HOLM = (
    "Holm, S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6, 65-70 "
    "(1979)."
)

MILLER = "Miller, R. G. The jackknife: a review. Biometrika 61, 1-15 (1974)."
SATTERTHWAITE = (
    "Satterthwaite, F. E. An approximate distribution of estimates of variance components. Biometrics Bulletin 2, "
    "110-114 (1946)."
)
SCHUIRMANN = (
    "Schuirmann, D. J. A comparison of the two one-sided tests procedure and the power approach for assessing the "
    "equivalence of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680 (1987)."
)


class References:
    """Numbers citations in the order in which they are first cited."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cite(self, citation: str) -> str:
        """Return the mark of a citation, such as ` [3]`; empty for an empty citation."""
        return f" [{self._numbers.setdefault(citation, len(self._numbers) + 1)}]" if citation else ""

    def listed(self) -> tuple[str, ...]:
        """Return the citations, in order."""
        return tuple(self._numbers)
