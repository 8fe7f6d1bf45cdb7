# SPDX-License-Identifier: Apache-2.0
"""Loads a YAML file into a pydantic model; errors name file, line and key.

A model sees plain data; the lines come from composing the document first and
remembering, for each path of keys and indices, where its node stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from suite.errors import BadInput

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["load", "shown"]

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

SIZE_LIMIT = 1 << 20
"""No file of ours comes near; a bigger one was named by mistake."""

EXPECTED = {
    "missing": "this key, which is required",
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value lines)",
    "model_type": "a mapping (key: value lines)",
    "model_attributes_type": "a mapping (key: value lines)",
}


def load(path: Path, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """The file's content as a `model`; `BadInput` says what is wrong and where."""
    node = _compose(path)
    lines: dict[Location, int] = {}
    data = _plain(path, node, (), lines)
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        raise BadInput(_explain(path, model, error, lines)) from error


def shown(path: Path) -> str:
    """The path as a person would type it: relative where that is shorter."""
    try:
        relative = str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
    return relative


def _compose(path: Path) -> yaml.Node:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise BadInput(
                f"{shown(path)} is larger than {SIZE_LIMIT} bytes, which no file of this kind is. "
                "Check that it is the YAML file that you meant."
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{shown(path)} is not UTF-8 text (byte {error.start}). Expected a YAML file; save it "
            "as UTF-8, or check that it is the file that you meant."
        ) from error
    except OSError as error:
        raise BadInput(
            f"{shown(path)} can't be read: {error.strerror}. Expected a readable YAML file there."
        ) from error
    try:
        # Composing builds nodes only: no tag of the document is ever acted upon.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise BadInput(_explain_syntax(path, error)) from error
    if node is None:
        raise BadInput(f"{shown(path)} is empty. Expected a mapping (key: value lines).")
    return node


def _explain_syntax(path: Path, error: yaml.YAMLError) -> str:
    where, problem = shown(path), "it is not YAML"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            where += f", line {mark.line + 1}, column {mark.column + 1}"
        problem = " ".join(filter(None, (error.context, error.problem))) or problem
    return f"{where}: not valid YAML: {problem}. Correct that line; indentation is by spaces only."


def _plain(path: Path, node: yaml.Node, at: Location, lines: dict[Location, int]) -> Any:
    """Plain data of a node; fills `lines` with the 1-based line of each path."""
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, item, (*at, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(path, key_node)
            line = key_node.start_mark.line + 1
            if key in result:
                first = lines[(*at, key)]
                raise BadInput(
                    f"{shown(path)}, line {line}, key '{_dotted((*at, key))}': found the key a "
                    f"second time (first on line {first}), expected it once. Remove one of them."
                )
            lines[(*at, key)] = line
            result[key] = _plain(path, value_node, (*at, key), lines)
        return result
    return _scalar(path, node)


def _scalar(path: Path, node: yaml.Node) -> Any:
    where = f"{shown(path)}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.ScalarNode):
        raise BadInput(f"{where}: found a list or mapping as a key, expected a word.")
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(
            f"{where}: found {node.value!r} with the tag {node.tag}, expected a plain value. "
            "Remove the tag, or put the value in quotes."
        ) from error


def _dotted(at: Location) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def _explain(
    path: Path, model: type[BaseModel], error: ValidationError, lines: dict[Location, int]
) -> str:
    problems = error.errors(include_url=False)
    first = _explain_one(path, model, problems[0], lines)
    others = [_dotted(_known(problem["loc"], lines)) for problem in problems[1:]]
    more = f" Also wrong: {', '.join(dict.fromkeys(others))}." if others else ""
    return first + more


def _known(loc: Location, lines: dict[Location, int]) -> Location:
    """The part of pydantic's location that stands in the file (it adds union tags)."""
    while loc and loc not in lines and loc[:-1] not in lines:
        loc = loc[:-1]
    return loc


def _explain_one(
    path: Path, model: type[BaseModel], problem: ErrorDetails, lines: dict[Location, int]
) -> str:
    loc = _known(problem["loc"], lines)
    line = lines.get(loc) or lines.get(loc[:-1], 1)
    where = f"{shown(path)}, line {line}, key '{_dotted(loc)}'"
    kind = problem["type"]
    if kind == "missing":
        return f"{where}: found nothing, expected this key, which is required. Add it."
    if kind == "extra_forbidden":
        known = ", ".join(_keys_at(model, loc[:-1])) or "none here"
        return f"{where}: found a key that is not known, expected one of: {known}. Remove or rename it."
    found = problem["input"]
    expected = EXPECTED.get(kind)
    if expected is None:
        context = problem.get("ctx", {})
        expected = str(context.get("expected") or context.get("error") or problem["msg"])
    return f"{where}: found {_brief(found)}, expected {expected}. Correct the value."


def _brief(value: object) -> str:
    text = repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    kinds = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        list: "list",
        dict: "mapping",
    }
    kind = kinds.get(type(value))
    return "nothing" if value is None else f"{text} (a {kind})" if kind else text


def _keys_at(model: type[BaseModel], at: Location) -> list[str]:
    """The keys that a (possibly nested) model takes at a location."""
    current: Any = model
    for part in at:
        field = None if isinstance(part, int) else current.model_fields.get(part)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if field is not None and nested:
            current = nested[0]
        elif field is not None:
            return []
    return [field.alias or name for name, field in current.model_fields.items()]
