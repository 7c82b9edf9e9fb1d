"""Makes a network with exits of any module: cut behind named modules, and the whole compared with all of its halves."""

import itertools
import numbers
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn

from offramp.models.data import MEAN, STD
from offramp.models.graph import Followed, SplitError, evaluating
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.probing import CLOSE, answer, check_alone, check_steady

__all__ = ["SplitError", "with_exits"]

Heads = Callable[[int, int], nn.Module] | Sequence[nn.Module]
PROBES = 3  # images: not 1, which would hide a forward that reckons with one image


class Rescaled(nn.Module):
    """Turns pixels as they are standardised here into pixels standardised by other means and deviations.

    Parameters
    ----------
    mean, std
        Of each channel on 0..1, as the model was trained with, (channels,).

    """

    factor: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        given = [list(mean), list(std)]
        if len(given[0]) != len(MEAN) or len(given[1]) != len(STD) or not all(s > 0.0 for s in given[1]):
            raise SplitError(f"mean is {given[0]} and std {given[1]}, allowed are {len(MEAN)} numbers each, std > 0")
        theirs, ours = torch.tensor(given, dtype=torch.float64), torch.tensor([MEAN, STD], dtype=torch.float64)
        self.register_buffer("factor", (ours[1] / theirs[1]).float().view(1, -1, 1, 1))
        self.register_buffer("offset", ((ours[0] - theirs[0]) / theirs[1]).float().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width)."""
        return x * self.factor + self.offset


def with_exits(
    model: nn.Module,
    after: Sequence[str],
    *,
    input_shape: Sequence[int],
    heads: Heads = ExitHead,
    classifier: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> MultiExitNetwork:
    """A network with an exit behind each named module and, as its last exit, the model's own classifier.

    The weights are the model's own, shared and not copied: a checkpoint may be loaded into it before or afterwards.

    Parameters
    ----------
    model
        Turns images (batch, channels, height, width) into logits (batch, classes).
    after
        The cut points in order, as `model.get_submodule` knows them.  Each gives a feature map (batch, channels,
        height, width), or tokens (batch, tokens, width), which here become maps (batch, width, tokens, 1).  All that
        follows must read nothing but it.  Of a module that is called several times, the last call counts.
    input_shape
        Of one image, (channels, height, width).
    heads
        Makes an exit of channels and classes; or the exits themselves, one for each cut point.
    classifier
        The module behind which the model's own classifier begins: that is the last exit's head.  None = behind the
        last weights whose output is still a map, and whatever leaves its shape as it is.
    mean, std
        Of the pixels on 0..1 that the model was trained with, (channels,); None = those of `offramp.models.data`.

    Returns
    -------
    MultiExitNetwork
        With len(after) + 1 exits, in the mode in which the model is.

    Raises
    ------
    SplitError
        A cut point does not exist, is no tensor, is out of order, or is passed by; weights are used on both sides of a
        cut; the model cannot read such images, or its answers hang on the call or on the other images of a batch; or
        on images of random pixels one of the pairs of halves does not answer what the model answers.

    Notes
    -----
    The forwards that call a cut point, and no others, are followed once by `torch.fx`, in evaluation mode.  Everything
    else stays the module that it was: it may do inside what it wants, has its training mode, and is exported, counted
    and timed as such.  What such a forward itself decides by `self.training` is fixed as in evaluation.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from offramp.models.split import with_exits
    >>> network = with_exits(resnet18(num_classes=10), ["layer1", "layer2.1.relu", "layer3"], input_shape=(3, 64, 64))
    >>> network.n_exits
    4

    """
    names, shape = _names(model, after), _shape(input_shape)
    if (mean is None) != (std is None):
        raise SplitError("mean and std are given one without the other, allowed are both or neither")
    rescaled = None if mean is None or std is None else Rescaled(mean, std)
    with evaluating(model), torch.no_grad():
        network = _made(model, names, shape, heads, classifier, rescaled)
        ours = set(network.modules()) - set(model.modules())
    for module in ours:
        module.training = model.training
    return network


def _names(model: nn.Module, after: Sequence[str]) -> list[str]:
    names = [after] if isinstance(after, str) else list(after)
    texts = not isinstance(after, str) and all(isinstance(name, str) and name for name in names)
    if not texts or not names or len(set(names)) != len(names):
        raise SplitError(f"after is {after!r}, allowed is a list of one name or more that differ")
    if isinstance(model, torch.jit.ScriptModule):
        raise SplitError(
            "the model is a ScriptModule, whose forward is no Python; allowed is the module it was made of"
        )
    return names


def _shape(given: Sequence[int]) -> tuple[int, int, int]:
    sides = list(given)
    whole = [int(s) for s in sides if isinstance(s, numbers.Integral) and not isinstance(s, bool) and s > 0]
    if len(sides) != 3 or len(whole) != 3:
        raise SplitError(f"input_shape is {tuple(sides)}, allowed are whole numbers > 0 (channels, height, width)")
    return whole[0], whole[1], whole[2]


def _made(
    model: nn.Module,
    names: list[str],
    shape: tuple[int, int, int],
    heads: Heads,
    classifier: str | None,
    rescaled: Rescaled | None,
) -> MultiExitNetwork:
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, PROBES, *shape, generator=generator).unbind(0)
    seen, strange = (x, other) if rescaled is None else (rescaled(x), rescaled(other))
    whole = answer(model, seen)
    check_steady(partial(answer, model), seen, whole, "the model")
    found = Followed(model, names if classifier is None else [*names, classifier], seen.clone())
    ends = [found.cuts[name] for name in names]
    ends.append(_classifier(found, names[-1]) if classifier is None else found.cuts[classifier])
    named = [*names, "the classifier's map" if classifier is None else classifier]
    parts = _parts(found, ends, named)
    widths = [found.shape(end)[2 if len(found.shape(end)) == 3 else 1] for end in ends[:-1]]
    segments: list[nn.Module] = list(parts[:-1])
    if rescaled is not None:
        segments[0] = nn.Sequential(rescaled, segments[0])
    exits = [*_heads(heads, widths, whole.shape[1]), parts[-1]]
    network = MultiExitNetwork(segments, exits, shape).eval()
    _ask(network, x, whole.shape[1], names)
    _compare(network, x, whole, lambda: answer(model, strange), named, found.unread)
    check_alone(partial(answer, model), seen, whole, "the model")
    ask = partial(_logits, network)
    logits = ask(x)
    check_steady(ask, x, logits, "an exit's head")
    check_alone(ask, x, logits, "an exit's head")
    return network


def _classifier(found: Followed, last: str) -> fx.Node:
    """The last map that weights were used for, and what keeps its shape behind it."""
    start = found.cuts[last]
    if found.around(start, found.output) is not None:
        raise SplitError(_passed_by(found, last, start, found.output))
    maps = [node for node in found.dominators(start, found.output) if len(found.shape(node)) in (3, 4)]
    weighty = [i for i, node in enumerate(maps) if found.bears_weights(node)]
    if not weighty:
        raise SplitError(
            f"cut point {last!r} is not followed by another feature map with weights before the classifier; allowed "
            "is to leave it out (the model's own classifier is the exit there), or to name one by `classifier`"
        )
    chosen = maps[weighty[-1]]
    for node in maps[weighty[-1] + 1 :]:
        if found.shape(node) != found.shape(chosen):
            break
        chosen = node
    return chosen


def _passed_by(found: Followed, name: str, start: fx.Node, end: fx.Node) -> str:
    return (
        f"cut point {name!r} is not the only way on: {found.around(start, end)}; "
        "allowed is a module whose output alone all that follows is computed from, and cut points in order"
    )


def _parts(found: Followed, ends: list[fx.Node], names: list[str]) -> list[fx.GraphModule]:
    """The segments and the classifier, once nothing leads around a cut."""
    for name, end in zip(names, ends, strict=True):
        if len(found.shape(end)) not in (3, 4):
            raise SplitError(
                f"cut point {name!r} gives {found.shape(end) or 'no tensor'}, allowed is a map (batch, channels, "
                "height, width) or tokens (batch, tokens, width)"
            )
    steps = list(itertools.pairwise([found.input, *ends, found.output]))
    for name, (start, end) in zip(names, steps[1:], strict=True):
        if start is end or found.around(start, end) is not None:
            raise SplitError(_passed_by(found, name, start, end))
    tokens = [False, *(len(found.shape(end)) == 3 for end in ends), False]
    parts = [
        found.segment(start, end, tokens=(before, behind))
        for (start, end), (before, behind) in zip(steps, itertools.pairwise(tokens), strict=True)
    ]
    owners: dict[nn.Parameter, int] = {}
    for i, part in enumerate(parts):
        for name, parameter in part.named_parameters():
            if owners.setdefault(parameter, i) != i:
                raise SplitError(
                    f"weights {name!r} are used on both sides of cut point {names[owners[parameter]]!r}, allowed are "
                    "weights that belong to one segment"
                )
    return parts


def _heads(heads: Heads, widths: list[int], classes: int) -> list[nn.Module]:
    if callable(heads):
        return [heads(width, classes) for width in widths]
    if len(heads) != len(widths):
        raise SplitError(f"heads are {len(heads)}, allowed are {len(widths)}: one for each cut point")
    return list(heads)


def _ask(network: MultiExitNetwork, x: Tensor, classes: int, names: list[str]) -> None:
    maps = network.maps(x.clone(memory_format=torch.channels_last))
    for name, head, features in zip(names, network.heads, maps, strict=False):
        logits = head(features)
        if logits.shape != (len(x), classes):
            raise SplitError(f"the exit behind {name!r} gives {tuple(logits.shape)}, allowed is {(len(x), classes)}")


def _compare(
    network: MultiExitNetwork,
    x: Tensor,
    whole: Tensor,
    elsewhere: Callable[[], Tensor],
    names: list[str],
    unread: list[str],
) -> None:
    """Run both halves at every cut; between them the model sees other images, so that nothing passes by in secret."""
    allowed = CLOSE * max(1.0, float(whole.abs().max()))
    alone: list[Tensor] = []
    for cut in range(network.n_exits):
        name = f"cut point {names[cut - 1]!r}" if cut else "the input"
        features, near = network.head(x.clone(memory_format=torch.channels_last), cut)
        sent = features.clone()
        elsewhere()
        far = network.tail(features, cut)
        if not torch.equal(features, sent):
            raise SplitError(f"{name} is overwritten by what follows, allowed is no `inplace=True` on it")
        gap = float((far[:, -1] - whole).abs().max())
        if not gap <= allowed:
            said = f"{name}: split and whole differ by {gap:.3g} in a logit, allowed are {allowed:.3g}"
            raise SplitError(f"{said}; {_lost(cut, unread)}")
        alone.append(far if near is None else torch.cat([near, far], 1))
        gap = float((alone[cut] - alone[0]).abs().max())
        if not gap <= CLOSE * max(1.0, float(alone[0].abs().max())):
            raise SplitError(f"{name}: exits differ by {gap:.3g} between split and whole, allowed are {allowed:.3g}")


def _logits(network: MultiExitNetwork, x: Tensor) -> Tensor:
    return network.tail(x.clone(memory_format=torch.channels_last), 0)


def _lost(cut: int, unread: list[str]) -> str:
    if unread:
        return f"nothing reads what {', '.join(unread)} gives: allowed is none that writes into another value's memory"
    if cut:
        return "what was kept of an earlier image was read behind it: allowed is a model that keeps nothing"
    return "its forward does what following it does not show"
