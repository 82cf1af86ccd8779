"""The values of options that are lists: names, types of columns, weights of classes, quantiles and units."""

from collections.abc import Sequence

from poise.cli.errors import BadInputError


def split_names(values: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in an option that is repeated or holds commas."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return tuple(name for name in names if name)


def split_types(values: Sequence[str] | None) -> dict[str, str] | None:
    """Return what --type says about each column, if anything; names of columns may hold an equals sign."""
    pairs = [value.rpartition("=") for value in values or ()]
    wrong = next((kind for column, _, kind in pairs if not column), None)
    if wrong is not None:
        raise BadInputError(f"--type must be COLUMN=TYPE, such as zip=categorical, got {wrong!r}.")
    return {column: kind for column, _, kind in pairs} or None


def split_class_weight(values: Sequence[str] | None) -> str | dict[str, float] | None:
    """Return what --class-weight says, if anything; names of classes may hold an equals sign."""
    if not values:
        return None
    if list(values) == ["balanced"]:
        return "balanced"
    pairs = [value.rpartition("=") for value in values]
    try:
        if not all(label for label, _, _ in pairs):
            raise ValueError
        return {label: float(weight) for label, _, weight in pairs}
    except ValueError:
        raise BadInputError(
            f"--class-weight must be the word balanced, or CLASS=WEIGHT such as yes=5, got {', '.join(values)!r}."
        ) from None


def split_quantiles(text: str) -> tuple[float, ...]:
    """Return the numbers of --quantiles."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise BadInputError(f"--quantiles must be numbers such as 0.1,0.5,0.9, got {text!r}.") from None


def split_units(text: str) -> tuple[int, ...]:
    """Return the units of --hidden-layer-sizes."""
    try:
        return () if text == "none" else tuple(int(units) for units in text.split(","))
    except ValueError:
        raise BadInputError(
            "--hidden-layer-sizes must be whole numbers such as 64,32, or the word none for a linear model, got "
            f"{text!r}."
        ) from None
