"""What every corruption of 8-bit images shares: checks of images and parameters, one generator for each image."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]
P = ParamSpec("P")

FAMILIES = ("pristine", "blur", "noise", "light", "compression")
SMALLEST = 8  # pixels: a smaller image is smaller than most kernels


@dataclass(frozen=True)
class Rule:
    """Which values a parameter may have, as words and as a predicate."""

    allowed: str
    holds: Callable[[Any], bool]


def number(*, least: float | None = None, above: float | None = None, most: float = math.inf) -> Rule:
    """Finite numbers >= `least`, or > `above`, that are <= `most`."""
    low, words = (least, f">= {least:g}") if least is not None else (above, f"> {above:g}")

    def holds(value: Any) -> bool:
        inside = _is_number(value) and math.isfinite(value) and value <= most
        return inside and (value >= low if least is not None else value > low)

    return Rule(f"is a finite number {words}" + (f" and <= {most:g}" if most < math.inf else ""), holds)


def whole(low: int, high: int | None = None) -> Rule:
    """Whole numbers in low..high, or all that are >= low."""
    words = f"in {low}..{high}" if high is not None else f">= {low}"

    def holds(value: Any) -> bool:
        inside = _is_number(value) and math.isfinite(value) and int(value) == value and value >= low
        return inside and (high is None or value <= high)

    return Rule(f"is a whole number {words}", holds)


def choice(*names: str) -> Rule:
    """One of these words."""
    return Rule(f"are {names}", lambda value: isinstance(value, str) and value in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


POSITIVE = number(above=0.0)
SEED = whole(0)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A corruption as the registry knows it.

    Parameters
    ----------
    name
        That of its function.
    apply
        The checked function: images (n, height, width, 3) uint8, the images' numbers (n,) where `seeded`, and its
        parameters by keyword; returns new images of the same shape.
    family
        One of `FAMILIES`.
    rules
        What each of its parameters may be.
    required
        Parameters that have no default.
    one_of
        Parameters of which exactly one is given.
    seeded
        Whether it draws random numbers.

    """

    name: str
    apply: Callable[..., Images]
    family: str
    rules: Mapping[str, Rule]
    required: tuple[str, ...]
    one_of: tuple[str, ...]
    seeded: bool

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Refuse parameters that are unknown, missing or out of range.

        Raises
        ------
        ValueError
            Names the parameter, the value found and what is allowed.

        """
        for key, value in parameters.items():
            if key not in self.rules:
                raise ValueError(f"{self.name} has no parameter {key!r}, allowed are {sorted(self.rules)}")
            if not self.rules[key].holds(value):
                found = repr(value) if isinstance(value, str) else value
                raise ValueError(f"{key} is {found}, allowed {self.rules[key].allowed}")
        missing = [key for key in self.required if key not in parameters]
        if missing:
            raise ValueError(f"{self.name} needs {missing}, found {sorted(parameters)}")
        given = [key for key in self.one_of if key in parameters]
        if self.one_of and len(given) != 1:
            raise ValueError(f"{self.name} needs exactly one of {list(self.one_of)}, found {given}")


CORRUPTIONS: dict[str, Corruption] = {}  # by name; filled where the functions are defined


def corruption(
    family: str, *, one_of: tuple[str, ...] = (), **rules: Rule
) -> Callable[[Callable[P, Images]], Callable[P, Images]]:
    """Register a function as a corruption and check its images, numbers and parameters before each call.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    one_of
        Parameters with default None of which exactly one must be given.
    **rules
        What each parameter may be; a function that takes `index` is seeded and also takes `seed`.

    """

    def register(function: Callable[P, Images]) -> Callable[P, Images]:
        signature = inspect.signature(function)
        seeded = "index" in signature.parameters

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Images:
            given = signature.bind(*args, **kwargs).arguments
            entry.check({k: v for k, v in given.items() if k in rules and not (k in one_of and v is None)})
            check_images(given["images"])
            if seeded:
                check_seed(given["seed"])
                _check_index(given["index"], len(given["images"]))
            return function(*args, **kwargs)

        entry = CORRUPTIONS[function.__name__] = Corruption(
            name=function.__name__,
            apply=checked,
            family=family,
            rules=rules,
            required=tuple(k for k in rules if signature.parameters[k].default is inspect.Parameter.empty),
            one_of=one_of,
            seeded=seeded,
        )
        return checked

    return register


def check_images(images: Any) -> None:
    """Refuse what is not (n, height, width, 3) uint8 with sides of at least 8 pixels."""
    if not isinstance(images, np.ndarray):
        raise ValueError(f"images are a {type(images).__name__}, allowed is a NumPy array")
    if images.dtype != np.uint8:
        raise ValueError(f"images have dtype {images.dtype}, allowed is uint8 (0..255)")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images have shape {images.shape}, allowed is (n, height, width, 3)")
    if min(images.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"images are {images.shape[1]} x {images.shape[2]} pixels, allowed is {SMALLEST} or more a side"
        )


def check_seed(seed: Any) -> None:
    """Refuse a seed that is not a whole number >= 0."""
    if not SEED.holds(seed):
        raise ValueError(f"seed is {seed!r}, allowed {SEED.allowed}")


def _check_index(index: Any, n: int) -> None:
    if np.shape(index) != (n,):
        raise ValueError(f"index has shape {np.shape(index)}, allowed is ({n},): one number for each image")
    if n and (not np.issubdtype(np.asarray(index).dtype, np.integer) or np.min(index) < 0):
        raise ValueError(f"index holds {np.asarray(index).dtype} from {np.min(index)}, allowed are whole numbers >= 0")


def generators(seed: int, index: Index) -> Iterator[np.random.Generator]:
    """One generator for each image, from the seed and the image's number: the same in whatever company."""
    return (np.random.default_rng((int(seed), int(i))) for i in index)


def to_bytes(values: npt.NDArray[np.floating]) -> Images:
    """Round to whole numbers and clip to 0..255."""
    rounded: Images = np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)
    return rounded
