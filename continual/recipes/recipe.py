"""Recipes: phases that train and phases that merge, over the rows of the domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from continual.errors import InputError, did_you_mean

START = "root"
"""Name of the root base in a phase."""

PLAIN: Mapping[str, Any] = {
    "train": {"distillation": 0.0, "guide_margin": "off", "anchor": "base", "mix_domains": False}
}
"""Settings of the published systems: the contrastive loss alone, and one domain per batch."""

GROUPINGS = ("domain", "kind", "cluster")
"""Ways to group domains."""

Value = int | float | str | tuple[float, ...]


@dataclass(frozen=True)
class Portion:
    """Rows of one domain.

    Attributes:
        domain: Name of the domain.
        rows: Number of rows; None for all. If it is more than the domain has, rows are repeated in hash order.
        draw: Number of a draw without replacement; the same seed and number give the same rows. None takes the first
            rows in hash order.
    """

    domain: str
    rows: int | None = None
    draw: int | None = None


@dataclass(frozen=True)
class Train:
    """A phase that trains a LoRA adapter and folds it in.

    Attributes:
        name: Name of the phase, unique in the recipe.
        start: Name of the phase whose model it starts from, or `START`.
        portions: Rows to train on.
        same_rows: Name of the phase whose rows it trains on, in place of `portions`.
        settings: Settings of [train] that replace those of the recipe and of `continual.toml`.
        keeps_rows: Whether a later run uses the same rows again, even if the domains have more rows by then.
    """

    name: str
    start: str
    portions: tuple[Portion, ...] = ()
    same_rows: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    keeps_rows: bool = False


@dataclass(frozen=True)
class Merge:
    """A phase that merges the models of other phases.

    Attributes:
        name: Name of the phase, unique in the recipe.
        members: Names of the phases whose models are merged, at least one.
        method: Name of the merge method.
        base: Name of the phase whose model task vectors are measured from, or `START`.
        weights: One weight per member; None for equal weights.
        parameters: Parameters of the method.
        search: Whether positions and scale are searched by gradient on held-out rows (Self Positioning). The method
            is pairwise_slerp then, and there are no weights.
    """

    name: str
    members: tuple[str, ...]
    method: str
    base: str = START
    weights: tuple[float, ...] | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    search: bool = False


Phase = Train | Merge


def needed_phases(phase: Phase) -> set[str]:
    """Return the names of the phases whose models a phase needs, which may include `START`."""
    return {*phase.members, phase.base} if isinstance(phase, Merge) else {phase.start}


@dataclass(frozen=True)
class Option:
    """An option of a recipe.

    Attributes:
        default: Default value. Its type is the option's type: a number, a word, or several numbers.
        what: Description, in one line.
        choices: The allowed words; empty allows any.
        low: Smallest allowed number.
        high: Largest allowed number.
    """

    default: Value
    what: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")

    def parse(self, name: str, text: str) -> Value:
        """Return the value of the option from text.

        Args:
            name: Name of the option, for the message.
            text: A number, a word, or numbers separated by commas.

        Raises:
            InputError: The text is not an allowed value.
        """
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                words = _either(self.choices)
                raise InputError(f"{name} takes {words}, not {text!r}.{did_you_mean(text, self.choices)}")
            return text
        several = isinstance(self.default, tuple)
        number_type = int if isinstance(self.default, int) else float
        try:
            numbers = [number_type(part) for part in (text.split(",") if several else [text])]
        except ValueError:
            numbers = []
        if not numbers or not all(self.low <= number <= self.high for number in numbers):
            one = "a whole number" if number_type is int else "a number"
            wanted = "numbers separated by commas" if several else one
            bounds = f"at least {self.low:g}" if self.high == float("inf") else f"from {self.low:g} to {self.high:g}"
            raise InputError(f"{name} takes {wanted}, {bounds}, not {text!r}.")
        return tuple(numbers) if several else numbers[0]


@dataclass(frozen=True)
class RecipeInput:
    """What a recipe decides its phases by.

    Attributes:
        rows: Number of trainable rows by domain, in the order of the stream, without rows held out for a search.
        kinds: Kind by domain, such as "retrieval" or "classification".
        clusters: Domains by cluster. Every domain is in exactly one cluster.
        dimensions: Returns the number of dimensions of the embeddings. It loads the model.
    """

    rows: Mapping[str, int]
    kinds: Mapping[str, str]
    clusters: Mapping[str, Sequence[str]]
    dimensions: Callable[[], int]

    def groups(self, by: str) -> dict[str, list[str]]:
        """Return domains grouped by one of `GROUPINGS`, in the order of the stream."""
        if by == "domain":
            return {domain: [domain] for domain in self.rows}
        clusters = {domain: cluster for cluster, domains in self.clusters.items() for domain in domains}
        group_of = self.kinds if by == "kind" else clusters
        groups: dict[str, list[str]] = {}
        for domain in self.rows:
            groups.setdefault(group_of[domain], []).append(domain)
        return groups

    def all(self, domains: Sequence[str] | None = None) -> tuple[Portion, ...]:
        """Return all rows of the given domains, by default of every domain."""
        return tuple(Portion(domain) for domain in (self.rows if domains is None else domains))


@dataclass(frozen=True)
class Recipe:
    """A training system, as phases.

    Attributes:
        name: Its name in `--recipe`.
        summary: Description, in one line.
        reference: URL of its paper, or name of its source; "" if there is none.
        cost: Its cost against a joint training, in one line.
        phases: Returns the phases from the input and the options; the last phase makes the result. None for a recipe
            that only `continual update` takes.
        settings: Settings by section and name that it trains with.
        options: Options by name.
        searches: Whether rows are held out of its training for a search of merge coefficients.
        clustered: Whether it always trains by clusters of domains. If not, its option `by` may ask for it.
        step: Settings by section and name with which an update does one step of the recipe. None if it has no steps.
    """

    name: str
    summary: str
    reference: str
    cost: str
    phases: Callable[[RecipeInput, Mapping[str, Any]], list[Phase]] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: PLAIN)
    options: Mapping[str, Option] = field(default_factory=dict)
    searches: bool = False
    clustered: bool = False
    step: Mapping[str, Mapping[str, Any]] | None = None

    def resolve(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Return the value of every option.

        Args:
            given: Text by option; options not in it have their default.

        Raises:
            InputError: There is no option of a name, or a text is not an allowed value.
        """
        for name in given:
            if name not in self.options:
                takes = f"has the options {', '.join(self.options)}" if self.options else "has no options"
                raise InputError(f"The recipe {self.name} {takes}, but not {name!r}.{did_you_mean(name, self.options)}")
        return {
            name: option.parse(f"The option {name} of {self.name}", given[name]) if name in given else option.default
            for name, option in self.options.items()
        }

    def by_clusters(self, given: Mapping[str, str]) -> bool:
        """Return whether it trains by clusters of domains with the given options, as `resolve` takes them."""
        return self.clustered or self.resolve(given).get("by") == "cluster"


def share_of(rows: int, share: float) -> int:
    """Return a share of a number of rows, rounded half up."""
    return int(rows * share + 0.5)


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
