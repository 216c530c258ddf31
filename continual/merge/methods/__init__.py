"""Merge methods: pure functions on fp32 tensors, one file each, with a declared contract.

A method gets the same tensor of every model, or its task vector (tensor minus the base's) if the method uses a base,
and returns the merged tensor. The engine reads the models, subtracts and adds the base, and writes the result.
"""

from __future__ import annotations

import importlib
import keyword
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from continual.errors import InputError, NotFoundError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Parameter:
    """A number that a method can be given.

    Attributes:
        default: Default value. A bool is a switch; an int is a count.
        low: Smallest value allowed.
        high: Largest value allowed.
        what: Description in one line.
        zero: The effect of 0, for the error message, if the range starts at 0 but 0 itself is refused.
        carried: Whether the engine sets it from the state of the previous merge, so that callers must not.
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
        name: Its name for `--method`.
        summary: Description in one line.
        reference: URL of the paper or text that describes it.
        base: "needed": it merges task vectors. "optional": it merges task vectors if there is a base, else the
            tensors themselves. "first": the first vector is the base, or the first model if there is no base. "none":
            it merges the tensors themselves.
        merge: `merge(vectors, weights, **parameters) -> Tensor`: `vectors` are fp32 tensors of one shape and must not
            be changed; `weights` has one float per vector. A seeded method also gets `generator`. If a parameter's
            name is a Python keyword, its argument ends in "_".
        least: Minimum number of models. The base counts only if it is the first vector.
        most: Maximum number of models; None for any number.
        parameters: Parameters by name.
        symmetric: Whether the result is independent of the order of the models.
        seeded: Whether it draws random numbers.
        weighted: Whether the weights have an effect.
        rescaled: Whether models are merged one after another: `merge` gets the merged model so far and one more, and
            the engine then divides the task vector of the whole merged model, so that its norm is the mean norm of
            all task vectors so far (https://arxiv.org/abs/2501.09522).
        needs_texts: Whether `merge` also gets `grams`, one per vector: G = X' X of what the layer gets as its inputs in
            that model on some texts, or None if the tensor is not the weight of a linear layer.
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
    needs_texts: bool = False

    @property
    def settable(self) -> dict[str, Parameter]:
        """The parameters that callers can set."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.carried}

    def resolve(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return the value of every parameter: the given value, else the default.

        Raises:
            InputError: A name is unknown, or a value is out of its range or has the wrong type.
        """
        for name, value in given.items():
            parameter = self.settable.get(name)
            if parameter is None:
                names = f"the parameters {', '.join(self.settable)}" if self.settable else "no parameters"
                raise InputError(f"{self.name} takes {names}, not {name!r}.{did_you_mean(name, self.settable)}")
            if not parameter.low <= value <= parameter.high:
                raise InputError(
                    f"{self.name}: {name} = {value:g} is out of range. Give a value from {parameter.low:g} to "
                    f"{parameter.high:g}."
                )
            if value == 0 and parameter.zero:
                raise InputError(f"{self.name}: {name} = 0 {parameter.zero}. Give a value above 0.")
            if value != type(parameter.default)(value):
                expected = "true or false" if isinstance(parameter.default, bool) else "a whole number"
                raise InputError(f"{self.name}: {name} = {value:g}, but it takes {expected}.")
        return {
            name: type(parameter.default)(given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }

    def check(self, models: int, has_base: bool) -> None:
        """Check the number of models, and whether there must be a base.

        Args:
            models: Number of models, the base not counted.
            has_base: Whether there is a base.

        Raises:
            InputError: There are too few or too many models, or a base is missing or not allowed.
        """
        if self.base == "needed" and not has_base:
            raise InputError(f"{self.name} merges the changes of models since a base. Name the base with --base.")
        if self.base == "none" and has_base:
            raise InputError(f"{self.name} uses no base. Leave --base out, or give it as one of the models.")
        if not self.fits(models, has_base):
            if self.base == "first" and has_base:
                raise InputError(
                    f"{self.name} merges {self.wanted} models and counts --base as the first, but {models} more were "
                    "given. Leave --base out, or name fewer models."
                )
            raise InputError(
                f"{self.name} merges {self.wanted} models, but {models} were given. Name that many, or choose another "
                "method."
            )

    def fits(self, models: int, has_base: bool) -> bool:
        """Return whether the method takes this number of models, the base not counted."""
        count = models + (self.base == "first" and has_base)
        return self.least <= count and (self.most is None or count <= self.most)

    @property
    def wanted(self) -> str:
        """The number of models that it merges, as text for a message."""
        if self.most is None:
            return f"{self.least} or more"
        return f"{self.least}" if self.most == self.least else f"{self.least} to {self.most}"

    def rehearse(self, weights: Sequence[float], settings: Mapping[str, float]) -> None:
        """Merge zeros, so that the method can refuse the weights before any model is read.

        Args:
            weights: One per vector.
            settings: As `resolve` returns them.

        Raises:
            InputError: The method does not accept these weights.
        """
        from torch import Generator, zeros

        more: dict[str, object] = {"generator": Generator()} if self.seeded else {}
        more |= {"grams": [None for _ in weights]} if self.needs_texts else {}
        self([zeros(1) for _ in weights], weights, **settings, **more)

    def __call__(self, vectors: Sequence[Tensor], weights: Sequence[float], **more: object) -> Tensor:
        """Merge one tensor of all models."""
        return self.merge(
            vectors, weights, **{f"{key}_" if keyword.iskeyword(key) else key: value for key, value in more.items()}
        )


@cache
def methods() -> dict[str, Method]:
    """Return all methods by name. Modules of this package declare theirs as `METHOD`."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    declared = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in sorted(declared, key=lambda method: method.name)}


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        NotFoundError: There is no such method; the message suggests the closest name.
    """
    if name not in methods():
        raise NotFoundError(f"There is no merge method {name!r}.{did_you_mean(name, methods())}")
    return methods()[name]
