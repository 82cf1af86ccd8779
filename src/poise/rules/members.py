"""The variables of a joint penalty, found by the paths of its members.

Layers of two models inside a model may have the same names, and so their variables the same paths. A member is then
named by the path and its place among the variables with the same tail, such as "fc/kernel (2 of 2)".
"""

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LIST_VARIABLES = "Run poise.summary(model) to list all variables."
NUMBERED = re.compile(r"(.+) \((\d+) of (\d+)\)")


def path_of(variable: Any) -> str:
    """Return the path of a variable."""
    return getattr(variable, "path", None) or variable.name


def have_same_tail(path: str, other: str) -> bool:
    """Whether two paths agree, segment by segment from their ends, up to the length of the shorter one.

    A model that is rebuilt from its configuration may lack the first segments of its variables' paths, or have more.
    """
    pairs = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    return all(a == b for a, b in pairs)


def names_of_members(variables: Iterable[Any]) -> list[str]:
    """Return per variable its path, followed by its place if others end with the same layer and variable.

    Keras drops the models around a layer when it rebuilds a model, so that paths may then be the same.
    """
    return unique_names([path_of(variable) for variable in variables], _end)


def unique_names(paths: Sequence[str], part: Callable[[str], str] = str) -> list[str]:
    """Return the paths, followed by a place for those on which `part` returns the same."""
    counts, seen, names = collections.Counter(map(part, paths)), collections.Counter(), []
    for path in paths:
        seen[part(path)] += 1
        count = counts[part(path)]
        names.append(f"{path} ({seen[part(path)]} of {count})" if count > 1 else path)
    return names


def without_place(name: str) -> str:
    """Return the path in a name of `unique_names`."""
    numbered = NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


def _end(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def find_candidates(path: str, variables: Sequence[Any]) -> list[int]:
    """Return the numbers of the variables with this path, or, if there is none, of those with the same tail.

    A path with a place belongs to at most one variable: the one with this path or, if there is not exactly one, the
    variable at this place. It belongs to none if the number of variables with the same tail has changed.
    """
    paths = [path_of(variable) for variable in variables]
    numbered = NUMBERED.fullmatch(path)
    if numbered and path not in paths:
        path, place, count = numbered[1], int(numbered[2]), int(numbered[3])
        near = [number for number, other in enumerate(paths) if _end(other) == _end(path)]
        if len(near) != count:
            return []
        same = [number for number in near if paths[number] == path]
        if len(same) == 1:
            return same
        return [number for number in near[place - 1 : place] if have_same_tail(path, paths[number])]
    same = [number for number, other in enumerate(paths) if other == path]
    return same or [number for number, other in enumerate(paths) if have_same_tail(path, other)]


def numbers_of_members(
    rule: Any, variables: Sequence[Any], frozen: Iterable[Any], hint: str = LIST_VARIABLES
) -> list[int]:
    """Return the numbers of the variables of the members of a rule's penalty, in the order of the members.

    Args:
        rule: A rule with a joint penalty.
        variables: The variables that are trained.
        frozen: Variables of the model that are not trained, if they are known.
        hint: How to list the variables, a sentence for messages.

    Raises:
        ValueError: If a member is not exactly one of the trained variables, or has another shape; if the rule has the
            name of another variable.
    """
    member_of: dict[int, str] = {}
    for path, (shape, _, _) in rule.penalty.members.items():
        who = f"Rule {rule.name!r}: the member {path!r}"
        if any(path_of(variable) == path for variable in frozen):
            raise ValueError(
                f"{who} is frozen (trainable=False) and cannot become zero. Set trainable=True, or leave it out of the "
                "penalty's members."
            )
        numbers = find_candidates(path, variables)
        if not numbers:
            raise ValueError(
                f"{who} is not one of the {len(variables)} trained variables. Use paths as in variable.path. {hint}"
            )
        if len(numbers) > 1:
            paths = ", ".join(repr(path_of(variables[number])) for number in numbers)
            raise ValueError(
                f"{who} is ambiguous: it matches {paths}. Use the full path, or add a number, such as "
                f"{f'{path} (1 of {len(numbers)})'!r}."
            )
        (number,) = numbers
        if number in member_of:
            raise ValueError(
                f"{who} and {member_of[number]!r} name the same variable, {path_of(variables[number])!r}. Remove one "
                "of them."
            )
        if tuple(variables[number].shape) != shape:
            raise ValueError(
                f"{who} has the shape {tuple(variables[number].shape)}, but its groups are for the shape {shape}. "
                "Create the penalty for this model."
            )
        member_of[number] = path
    if any(path_of(variable) == rule.name for number, variable in enumerate(variables) if number not in member_of):
        raise ValueError(
            f"The name {rule.name!r} of the joint rule is the path of another variable. Pass another name= to the rule."
        )
    return list(member_of)


def check_alone(
    number: int,
    members: Mapping[int, list[int]],
    rules: Sequence[Any],
    rules_of: Mapping[int, list[int]],
    variables: Sequence[Any],
) -> None:
    """Raise ValueError if another rule acts on a variable of the joint rule of this number."""
    for member in members[number]:
        for other in rules_of[member]:
            if other == number:
                continue
            path = path_of(variables[member])
            if other in members:
                both = "two joint penalties"
                remedy = "Leave the variable out of the members of one of the two penalties."
            else:
                both = "a joint penalty and another penalty"
                remedy = (
                    f"Exclude the variable from rule {rules[other].name!r}: poise.Rule(..., exclude=[{path!r}, ...])."
                )
            raise ValueError(
                f"Rules {rules[number].name!r} and {rules[other].name!r} put {both} on {path!r}, but a joint penalty "
                f"must be the only penalty on its members. {remedy}"
            )
