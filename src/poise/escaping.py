"""Text from files as a terminal may show it: what would steer the terminal is shown escaped."""

import unicodedata

STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, directions and the like, halves of characters, ends of lines and paragraphs."""
JOINERS = "\u200c\u200d"
"""Of the category Cf, and part of words."""


def visible(text: object) -> str:
    """A text in which no character moves the cursor, changes colors, reverses the direction or ends the line.

    Example:
        >>> from poise.escaping import visible
        >>> print(visible("a\\x1b[31mred"))
        a\\x1b[31mred
    """
    return "".join(_escaped(one) if _steers(one) else one for one in str(text))


def _steers(one: str) -> bool:
    return not one.isprintable() and one not in JOINERS and unicodedata.category(one) in STEERING


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
