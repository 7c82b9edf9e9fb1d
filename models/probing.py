"""Asks a whole model about random pixels, and says why it cannot be cut: what it reads, chance, other images."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from offramp.models.graph import SplitError

CLOSE = 1e-4  # of the largest logit: kernels for another memory order add in another order
FAILS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)  # of a forward
STEADY = "one that draws nothing in evaluation mode (`dropout(training=True)` does) and keeps nothing"
ALONE = "one that reads no other image (a batch norm without running statistics does)"
Ask = Callable[[Tensor], Tensor]


def foreign(model: nn.Module) -> str:
    """What of a model's weights is not what images are here, float32 on the CPU, in words; "" where nothing is.

    Examples
    --------
    >>> foreign(nn.Linear(2, 2)), foreign(nn.Linear(2, 2).half())
    ('', "weights 'weight' are torch.float16 on cpu")

    """
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        if value.device.type != "cpu" or (value.dtype.is_floating_point and value.dtype != torch.float32):
            return f"weights {name!r} are {value.dtype} on {value.device}"
    return ""


def answer(model: nn.Module, x: Tensor) -> Tensor:
    """A model's logits (batch, classes) of images (batch, channels, height, width), which stay as they are.

    Raises
    ------
    SplitError
        It cannot read them, gives anything else, or logits that are not finite.

    """
    try:
        # A copy, in the memory order in which everything here runs; some models write into what they are given.
        out = model(x.clone(memory_format=torch.channels_last))
    except FAILS as error:
        raise SplitError(_unreadable(model, x, str(error).split("\n", 1)[0])) from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(x):
        given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise SplitError(f"the model gives {given} for {len(x)} images, allowed is one tensor (batch, classes)")
    if not bool(out.isfinite().all()):
        raise SplitError("the model gives logits of random pixels that are nan or infinite, allowed are finite ones")
    return out


def _unreadable(model: nn.Module, x: Tensor, error: str) -> str:
    said = f"the model cannot read images {tuple(x.shape)}"
    try:
        model(x.clone(memory_format=torch.contiguous_format))
    except FAILS:
        if strange := foreign(model):
            return f"{said} of torch.float32 on cpu ({error}): {strange}, allowed is to convert or move what comes back"
        return f"{said} ({error}), allowed is an input_shape that it is made for, and any number of images"
    return (
        f"{said} in channels-last memory order ({error}); allowed is a model that can (where `view` is what fails, "
        "`flatten` or `reshape` does not)"
    )


def check_steady(ask: Ask, x: Tensor, whole: Tensor, what: str) -> None:
    """Ask again.

    Parameters
    ----------
    ask
        Turns images into logits, the first axis of both is the batch.
    x, whole
        Images, and what was answered when they were asked about first.
    what
        Is asked, for the message.

    Raises
    ------
    SplitError
        An answer hangs on the call.

    """
    _check(ask(x), whole, f"{what} answers the same images otherwise from call to call", STEADY)


def check_alone(ask: Ask, x: Tensor, whole: Tensor, what: str) -> None:
    """Ask about the first image alone; the parameters are those of `check_steady`.

    Raises
    ------
    SplitError
        An answer hangs on the other images.

    """
    _check(ask(x[:1]), whole[:1], f"{what} answers one image otherwise than the same among {len(x)}", ALONE)


def _check(found: Tensor, whole: Tensor, otherwise: str, meant: str) -> None:
    allowed = CLOSE * max(1.0, float(whole.abs().max()))
    gap = float((found - whole).abs().max())
    if not gap <= allowed:
        raise SplitError(f"{otherwise}: by {gap:.3g} in a logit, above {allowed:.3g}; allowed is {meant}")
