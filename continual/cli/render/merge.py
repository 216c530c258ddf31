"""What merge prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.cli.render.console import say

if TYPE_CHECKING:
    from continual.merge.methods import Method, Parameter
    from continual.stream.sample import TextSample


def print_merged(models: Sequence[str], method: str, target: Path) -> None:
    """Print what was merged, and where the result is."""
    what = f"{len(models)} models" if len(models) > 1 else "1 model"
    say(f"Merged {what} by {method} into {target}: SentenceTransformer({str(target)!r}) loads it.")


def print_sample(file: str, sample: TextSample) -> None:
    """Print which texts of a file were used."""
    texts = sample.texts
    roles = {"queries": len(texts.queries), "documents": len(texts.documents)}
    some = " and ".join(f"{count:,} {role}" for role, count in roles.items() if count)
    drawn = f", drawn from {sample.found:,} texts" if sample.found > len(texts) else ""
    unused = f" Values without text: {sample.unused:,}." if sample.unused else ""
    unread = f" Not read: {', '.join(sample.unread)}." if sample.unread else ""
    say(f"{file}: {some}{drawn}.{unused}{unread}")


def merged_json(target: Path) -> dict[str, str]:
    """Return the folder of a merge and the digest of its weights."""
    from continual.models.weights import weights_sha256

    return {"directory": str(target), "sha256": weights_sha256(target)}


def print_methods(methods: Mapping[str, Method]) -> None:
    """Print the merge methods with what they need, and their parameters."""
    for method in methods.values():
        base = {"needed": "a base", "optional": "an optional base", "first": "a base as the first of them"}
        counts = f"{_models(method)} model{'' if method.most == 1 else 's'}"
        also = f", with {base[method.base]}" if method.base in base else ""
        order = ", in order" if method.rescaled else ""
        say(f"{method.name}: {counts}{order}{also}. {method.summary}")
        for name, each in method.settable.items():
            say(f"    {name}={_value(each.default)}  {each.what}{_range(each)}")
    say(
        "Parameters show their defaults; set one with `continual merge -p NAME=VALUE`, or with `--set "
        "merge.parameters.NAME=VALUE` in `continual update`. Formulas, and when to use which: docs/merging.md."
    )


def methods_json(methods: Mapping[str, Method]) -> list[dict[str, Any]]:
    """Return the merge methods with their contracts as plain data."""
    return [
        {
            "name": method.name,
            "summary": method.summary,
            "reference": method.reference,
            "base": method.base,
            "models": [method.least, method.most],
            "seeded": method.seeded,
            "parameters": {
                name: {"default": each.default, "low": each.low, "high": each.high, "what": each.what}
                for name, each in method.settable.items()
            },
        }
        for method in methods.values()
    ]


def _range(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool):
        return ""
    return f", {'above ' * bool(parameter.zero)}{parameter.low:g} to {parameter.high:g}"


def _models(method: Method) -> str:
    if method.most == method.least:
        return str(method.least)
    return f"{method.least} to {method.most}" if method.most else f"{method.least} or more"


def _value(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
