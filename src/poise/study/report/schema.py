"""The schema of study.json, and its checksum."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import jsonschema
from jsonschema.exceptions import ValidationError, best_match

FORMAT = "poise study"
VERSION = 6
LONGEST_MESSAGE = 200


@cache
def schema() -> dict:
    """Return the JSON Schema of study.json."""
    return json.loads((files("poise.study.report") / "templates" / "study.schema.json").read_text(encoding="utf-8"))


def find_violation(content: Mapping) -> str:
    """Return what is wrong with the content of study.json by its schema, in one line, or `""`."""
    error = best_match(jsonschema.Draft202012Validator(schema()).iter_errors(content))
    return "" if error is None else _describe_error(error)


def checksum_of(content: Mapping) -> str:
    """Return the SHA-256 of the content of study.json without its checksum, independent of its layout."""
    text = json.dumps({name: value for name, value in content.items() if name != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _describe_error(error: ValidationError) -> str:
    place = error.json_path.removeprefix("$").removeprefix(".") or "the content"
    message = " ".join(error.message.split())
    if len(message) > LONGEST_MESSAGE:  # it repeats the value
        message = f"it violates {error.validator!r}"
    return f"{place}: {message}"
