"""JSON Schemas of the two files, generated from the types that parse them."""

from __future__ import annotations

from typing import Any

import msgspec

from allocator.formats.types import ProblemFile, SolutionFile


def schema(what: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of "problem" or "solution"."""
    kind = {"problem": ProblemFile, "solution": SolutionFile}[what]
    (made,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    top = components.pop(made["$ref"].rpartition("/")[2])
    top["patternProperties"] = {"^x-": {}}
    top["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": f"allocation-{what}, version 1",
        "$defs": components,
    }
