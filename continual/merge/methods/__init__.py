"""Merge methods: pure functions in fp32, vectors in, vector out. One file each, which declares its contract.

The vectors are one tensor of every model: the tensor itself, or its task vector (tensor minus the base's) where
the method works from a base. The engine reads, subtracts and adds the base, and writes.
"""

from __future__ import annotations

import importlib
import keyword
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from torch import Generator, Tensor, zeros

from continual.errors import InputError, NotFoundError, did_you_mean


@dataclass(frozen=True)
class Parameter:
    """One number that a method can be told.

    Attributes:
        default: Its value when nothing is said. A bool is a switch; an int is a count.
        low: Smallest value allowed.
        high: Largest value allowed.
        what: What it does, in one line.
        zero: What would come of 0, if that is refused though the range begins there.
        carried: Whether the engine sets it from what the merge before left, so that nobody else may.
    """

    default: float
    low: float
    high: float
    what: str
    zero: str | None = None
    carried: bool = False


@dataclass(frozen=True)
class Method:
    """A merge method and its contract.

    Attributes:
        name: What `--method` calls it.
        summary: What it does, in one line.
        reference: URL of the paper or text that it comes from.
        base: "needed": it merges task vectors. "optional": task vectors if there is a base, else the tensors
            themselves. "first": the base, or the first model where none is named, is the first vector. "none":
            it merges the tensors themselves.
        merge: `merge(vectors, weights, **parameters) -> Tensor`: `vectors` are fp32 tensors of one shape, never
            changed; `weights` has one float for each (where base is "first", for the first too). A seeded method
            is also given `generator`. Where a parameter's name is a Python keyword, its argument ends in "_".
        least: Fewest models, the base not counted unless it is the first of them.
        most: Most models; None for any number.
        parameters: By name.
        symmetric: Whether the order of the models (with their weights) changes nothing.
        seeded: Whether it draws random numbers.
        weighted: Whether the weights do anything.
        rescaled: Whether models are merged in sequence: `merge` is given what is merged so far and one more, and the
            engine divides the merged task vector of the whole model, so that its norm is the mean norm of all task
            vectors so far (https://arxiv.org/abs/2501.09522). One tensor cannot know that.
    """

    name: str
    summary: str
    reference: str
    base: Literal["needed", "optional", "first", "none"]
    merge: Callable[..., Tensor]
    least: int = 1
    most: int | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    symmetric: bool = True
    seeded: bool = False
    weighted: bool = True
    rescaled: bool = False

    @property
    def settable(self) -> dict[str, Parameter]:
        """Return the parameters that a person can set."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.carried}

    def resolve(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return every parameter's value: what is given, else the default.

        Raises:
            InputError: A name is not known, or a value is outside its range or of another kind.
        """
        for name, value in given.items():
            known = self.settable.get(name)
            if known is None:
                takes = ", ".join(self.settable) or "no parameter"
                raise InputError(f"{self.name} takes {takes}; not {name!r}.{did_you_mean(name, self.settable)}")
            if not known.low <= value <= known.high:
                raise InputError(f"{self.name}: {name} = {value:g} is outside {known.low:g} to {known.high:g}.")
            if value == 0 and known.zero:
                raise InputError(f"{self.name}: {name} = 0 {known.zero}. Give more than 0.")
            if value != type(known.default)(value):
                wanted = "true or false" if isinstance(known.default, bool) else "a whole number"
                raise InputError(f"{self.name}: {name} is {wanted}, not {value:g}.")
        return {name: type(known.default)(given.get(name, known.default)) for name, known in self.parameters.items()}

    def check(self, models: int, has_base: bool) -> None:
        """Refuse a number of models that the method cannot merge.

        Args:
            models: How many, the base not counted.
            has_base: Whether a base is named.

        Raises:
            InputError: They are too few or too many, or a base is missing or in the way.
        """
        if self.base == "needed" and not has_base:
            raise InputError(f"{self.name} merges what models learned since a base. Name the base with --base.")
        if self.base == "none" and has_base:
            raise InputError(f"{self.name} uses no base. Leave --base out, or give it as one of the models.")
        if not self.fits(models, has_base):
            if self.base == "first" and has_base:
                raise InputError(
                    f"{self.name} merges {self.wanted} models, and --base is the first of them: {models} more were "
                    "given. Leave --base out, or leave out what is too much."
                )
            raise InputError(f"{self.name} merges {self.wanted} models, and {models} were given.")

    def fits(self, models: int, has_base: bool) -> bool:
        """Return whether the method merges so many models.

        Args:
            models: How many, the base not counted.
            has_base: Whether there is a base.
        """
        count = models + (self.base == "first" and has_base)
        return self.least <= count and (self.most is None or count <= self.most)

    @property
    def wanted(self) -> str:
        """Return how many models it merges, as a message says it."""
        if self.most is None:
            return f"{self.least} or more"
        return f"{self.least}" if self.most == self.least else f"{self.least} to {self.most}"

    def rehearse(self, weights: Sequence[float], settings: Mapping[str, float]) -> None:
        """Merge nothing but zeros: weights that the method refuses are refused before a model is read.

        Args:
            weights: One for each vector.
            settings: From `resolve`.

        Raises:
            InputError: The method cannot work with these weights.
        """
        random = {"generator": Generator()} if self.seeded else {}
        self([zeros(1) for _ in weights], weights, **settings, **random)

    def __call__(self, vectors: Sequence[Tensor], weights: Sequence[float], **more: object) -> Tensor:
        """Merge one tensor of all models."""
        return self.merge(
            vectors, weights, **{f"{key}_" if keyword.iskeyword(key) else key: value for key, value in more.items()}
        )


@cache
def methods() -> dict[str, Method]:
    """Return every method by name: each module of this package declares one as `METHOD`."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    found = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in sorted(found, key=lambda method: method.name)}


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        NotFoundError: There is none; the message names the nearest.
    """
    if name not in methods():
        raise NotFoundError(f"There is no merge method {name!r}.{did_you_mean(name, methods())}")
    return methods()[name]
