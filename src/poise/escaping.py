"""Text from files for a terminal, with control characters escaped."""

import unicodedata

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: controls, formats such as text direction, surrogates, line and paragraph separators."""
JOINERS = "\u200c\u200d"
"""Characters of the category Cf that are part of words."""


def escape_controls(text: object) -> str:
    """Escape characters that move the cursor, change colors, reverse the text direction or end the line.

    Args:
        text: Object whose text is escaped.

    Returns:
        The escaped text.

    Examples:
        >>> from poise.escaping import escape_controls
        >>> print(escape_controls("a\\x1b[31mred"))
        a\\x1b[31mred
    """
    return "".join(_escape(character) if _is_control(character) else character for character in str(text))


def _is_control(character: str) -> bool:
    return not character.isprintable() and character not in JOINERS and unicodedata.category(character) in CONTROLS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
