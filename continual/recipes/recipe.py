"""What a recipe is made of: phases that train and phases that merge, over the rows of a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from continual.errors import InputError, did_you_mean

START = "root"
"""What a phase calls the root base."""

PLAIN: Mapping[str, Any] = {
    "train": {"distillation": 0.0, "guide_margin": "off", "anchor": "base", "mix_domains": False}
}
"""Settings of the published systems: the contrastive loss, a domain a batch, and nothing of ours that holds it back."""

Value = int | float | str | tuple[float, ...]


@dataclass(frozen=True)
class Portion:
    """Rows of one domain.

    Attributes:
        domain: The domain.
        rows: How many; None for all. More than the domain has: all, as often as needed, and then the first ones.
        draw: Which draw without replacement; the same seed and draw give the same rows. None: the first in hash order.
    """

    domain: str
    rows: int | None = None
    draw: int | None = None


@dataclass(frozen=True)
class Train:
    """A phase that trains a LoRA update and folds it in.

    Attributes:
        name: Of the phase, unique in the recipe.
        start: The phase whose model it starts from, or `START`.
        portions: The rows that it trains on.
        same_rows: The phase on whose rows it trains instead.
        settings: Of [train], over what the recipe and `continual.toml` say.
        keeps_rows: An earlier run's rows are kept, though there are more by now.
    """

    name: str
    start: str
    portions: tuple[Portion, ...] = ()
    same_rows: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    keeps_rows: bool = False


@dataclass(frozen=True)
class Merge:
    """A phase that merges the models of others.

    Attributes:
        name: Of the phase, unique in the recipe.
        members: The phases whose models are merged, at least one.
        method: The merge method.
        base: The phase from whose model task vectors are measured, or `START`.
        weights: One a member; None: all the same.
        parameters: Of the method.
        search: Whether positions and scale are found by gradient on held-out rows (Self Positioning); the method is
            pairwise_slerp then, and there are no weights.
    """

    name: str
    members: tuple[str, ...]
    method: str
    base: str = START
    weights: tuple[float, ...] | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    search: bool = False


Phase = Train | Merge


@dataclass(frozen=True)
class Option:
    """What a recipe can be told.

    Attributes:
        default: Its value when nothing is said; its type says what it takes: a number, a word, or several numbers.
        what: What it does, in one line.
        choices: The words it takes; none: any.
        low: Smallest number.
        high: Largest number.
    """

    default: Value
    what: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")

    def parse(self, name: str, text: str) -> Value:
        """Return the value of a text.

        Raises:
            InputError: It is none that the option takes.
        """
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                raise InputError(f"{name} is {_either(self.choices)}, not {text!r}.{did_you_mean(text, self.choices)}")
            return text
        several = isinstance(self.default, tuple)
        kind = int if isinstance(self.default, int) else float
        try:
            numbers = [kind(part) for part in (text.split(",") if several else [text])]
        except ValueError:
            numbers = []
        if not numbers or not all(self.low <= number <= self.high for number in numbers):
            wanted = "numbers with commas between them" if several else "a whole number" if kind is int else "a number"
            bounds = f" from {self.low:g} on" if self.high == float("inf") else f" from {self.low:g} to {self.high:g}"
            raise InputError(f"{name} takes {wanted}{bounds}, not {text!r}.")
        return tuple(numbers) if several else numbers[0]


@dataclass(frozen=True)
class Stock:
    """What a recipe has to train on.

    Attributes:
        rows: By domain, in the order of the stream: its trainable rows, those held out for a search left aside.
        kinds: By domain: the type of its task, such as "retrieval" or "classification".
        clusters: By name: domains. Each domain is in one.
        dimensions: Returns those of the embeddings; it loads the model.
    """

    rows: Mapping[str, int]
    kinds: Mapping[str, str]
    clusters: Mapping[str, Sequence[str]]
    dimensions: Callable[[], int]

    def groups(self, by: str) -> dict[str, list[str]]:
        """Return domains by "domain", "kind" or "cluster", in the order of the stream."""
        if by == "domain":
            return {domain: [domain] for domain in self.rows}
        of = self.kinds if by == "kind" else {name: key for key, names in self.clusters.items() for name in names}
        found: dict[str, list[str]] = {}
        for domain in self.rows:
            found.setdefault(of[domain], []).append(domain)
        return found

    def all(self, domains: Sequence[str] | None = None) -> tuple[Portion, ...]:
        """Return all rows of some domains, or of all."""
        return tuple(Portion(domain) for domain in (self.rows if domains is None else domains))


@dataclass(frozen=True)
class Recipe:
    """A training system, as phases.

    Attributes:
        name: What `--recipe` calls it.
        summary: What it does, in one line.
        reference: URL of the paper or text that it comes from; "" for what has none.
        cost: What it costs beside a joint training, in one line.
        phases: Maps the rows and the options to the phases, the last of which makes the result. None: it is a recipe
            of `update` alone.
        settings: Of the workspace, by section, which it sets when it trains.
        options: By name.
        searches: Whether rows are held out of its training for a search.
        clustered: Whether it always goes by clusters of domains; else it may do so by its option `by`.
        step: Settings of `update`, by section, with which one step does what the recipe says. None: it has no steps.
    """

    name: str
    summary: str
    reference: str
    cost: str
    phases: Callable[[Stock, Mapping[str, Any]], list[Phase]] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: PLAIN)
    options: Mapping[str, Option] = field(default_factory=dict)
    searches: bool = False
    clustered: bool = False
    step: Mapping[str, Mapping[str, Any]] | None = None

    def resolve(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Return every option's value: what is given, as text, else the default.

        Raises:
            InputError: A name is not known, or a text is no value of it.
        """
        for name in given:
            if name not in self.options:
                takes = ", ".join(self.options) or "no option"
                raise InputError(f"{self.name} takes {takes}; not {name!r}.{did_you_mean(name, self.options)}")
        return {
            name: option.parse(f"{self.name}: {name}", given[name]) if name in given else option.default
            for name, option in self.options.items()
        }

    def by_clusters(self, given: Mapping[str, str]) -> bool:
        """Return whether it goes by clusters of domains with these options, which are as in `resolve`."""
        return self.clustered or self.resolve(given).get("by") == "cluster"


def part(rows: int, share: float) -> int:
    """Return a share of some rows, halves rounded up."""
    return int(rows * share + 0.5)


BY = ("domain", "kind", "cluster")
"""How domains can be grouped."""


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
