"""Names of candidates inside sentences."""

from typing import TYPE_CHECKING

from poise.study.candidates.penalties import PENALTIES

if TYPE_CHECKING:
    from poise.study.findings import Candidate


def quantity_of(name: str) -> str:
    """Return what the values of a candidate's path are called: its strength, or the rate of dropout."""
    return PENALTIES[name].quantity if name in PENALTIES else "strength"


def name_inside(candidate: "Candidate") -> str:
    """Return a candidate's name inside a sentence: L2, the group lasso, dropout."""
    title = candidate.title
    if title[1:2].isupper() or title[1:2].isdigit():  # an acronym
        return title
    lower = title[0].lower() + title[1:]
    return f"the {lower}" if " " in title else lower


def capitalize(text: str) -> str:
    """Return a text with an upper-case first letter; the others stay as they are."""
    return text[0].upper() + text[1:]
