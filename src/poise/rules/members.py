"""The variables of a joint penalty: those that its members name by their paths.

Layers of two models inside a model may have the same names, and so their variables the same paths. A member is then
named by the path and its place among the variables that end alike, such as "fc/kernel (2 of 2)".
"""

import collections
import re
from collections.abc import Callable, Sequence

NUMBERED = re.compile(r"(.+) \((\d+) of (\d+)\)")


def path_of(variable) -> str:
    return getattr(variable, "path", None) or variable.name


def have_same_tail(one: str, other: str) -> bool:
    """Whether two paths agree, segment by segment from their ends, as far as the shorter one goes.

    A model that is rebuilt from its configuration may lack the first segments of its variables' paths, or have more.
    """
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return all(a == b for a, b in pairs)


def names_of_members(variables) -> list[str]:
    """Per variable its path, followed by its place where others end with the same layer and variable.

    Keras leaves out the models around a layer when it rebuilds a model, so that then paths may be the same.
    """
    return unique_names([path_of(variable) for variable in variables], _end)


def unique_names(paths: Sequence[str], part: Callable[[str], str] = str) -> list[str]:
    """The paths, those of which `part` gives the same followed by their places among these."""
    counts, seen, names = collections.Counter(map(part, paths)), collections.Counter(), []
    for path in paths:
        seen[part(path)] += 1
        count = counts[part(path)]
        names.append(f"{path} ({seen[part(path)]} of {count})" if count > 1 else path)
    return names


def without_place(name: str) -> str:
    numbered = NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


def _end(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def alike(path: str, variables) -> list[int]:
    """The numbers of the variables of this path, or, where there is none, of those whose paths have the same tail.

    A path with a place is that of one variable at most, and of none if there are more or fewer variables that end alike
    than there were: it is the variable of this path or, where that is not one, the variable at this place.
    """
    paths = [path_of(variable) for variable in variables]
    numbered = NUMBERED.fullmatch(path)
    if numbered and path not in paths:
        path, place, count = numbered[1], int(numbered[2]), int(numbered[3])
        near = [number for number, other in enumerate(paths) if _end(other) == _end(path)]
        if len(near) != count:
            return []
        same = [number for number in near if paths[number] == path]
        return (
            same
            if len(same) == 1
            else [number for number in near[place - 1 : place] if have_same_tail(path, paths[number])]
        )
    same = [number for number, other in enumerate(paths) if other == path]
    return same or [number for number, other in enumerate(paths) if have_same_tail(path, other)]


def numbers_of_members(rule, variables, frozen) -> list[int]:
    """The numbers of the variables of the members of a rule's penalty, in the members' order.

    Args:
        rule: a rule with a joint penalty.
        variables: the variables that are trained.
        frozen: variables of the model that are not, if they are known.

    Raises:
        ValueError: if a member is none of those that are trained, or more than one, or has another shape; if the rule
            has the name of another variable.
    """
    found = {}
    for path, (shape, _, _) in rule.penalty.members.items():
        who = f"Rule {rule.name!r}: the member {path!r}"
        if any(path_of(variable) == path for variable in frozen):
            raise ValueError(f"{who} is frozen (trainable=False) and cannot become zero. Train it, or leave it out.")
        numbers = alike(path, variables)
        if not numbers:
            raise ValueError(
                f"{who} is no variable of the {len(variables)} that are trained. Give paths as variable.path tells "
                "them; poise.summary(model) lists all."
            )
        if len(numbers) > 1:
            paths = ", ".join(repr(path_of(variables[number])) for number in numbers)
            raise ValueError(
                f"{who} may be any of {paths}. Give the whole path, or its place among those, such as "
                f"{f'{path} (1 of {len(numbers)})'!r}."
            )
        (number,) = numbers
        if number in found:
            raise ValueError(f"{who} is {path_of(variables[number])!r}, and so is {found[number]!r}. Leave one out.")
        if tuple(variables[number].shape) != shape:
            raise ValueError(
                f"{who} has the shape {tuple(variables[number].shape)}, and its groups are for the shape {shape}. Make "
                "the penalty for this model."
            )
        found[number] = path
    if any(path_of(variable) == rule.name for number, variable in enumerate(variables) if number not in found):
        raise ValueError(f"The joint rule is named {rule.name!r}, as another variable is. Give it another name.")
    return list(found)


def check_alone(number: int, members: dict[int, list[int]], rules, rules_of, variables):
    """Raises ValueError if another rule acts on a variable of the joint rule of this number."""
    for member in members[number]:
        for other in rules_of[member]:
            if other == number:
                continue
            both = "two joint penalties" if other in members else "another penalty beside a joint one"
            raise ValueError(
                f"Rules {rules[number].name!r} and {rules[other].name!r} put {both} on {path_of(variables[member])!r}, "
                f"and no step for both is known. Exclude it from the other: poise.Rule(..., exclude=["
                f"{path_of(variables[member])!r}, ...])."
            )
