"""Names of candidates inside sentences."""

from poise.study.findings import Candidate


def name_inside(candidate: Candidate) -> str:
    """Return a candidate's name inside a sentence: L2, the group lasso."""
    title = candidate.title
    is_acronym = title[1:2].isupper() or title[1:2].isdigit()
    return title if is_acronym else f"the {title[0].lower()}{title[1:]}"


def capitalize(text: str) -> str:
    """Return a text with an upper-case first letter; the others stay as they are."""
    return text[0].upper() + text[1:]
