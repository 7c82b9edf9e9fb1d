"""Trains both routers on images of which a quarter belongs to each family, and counts what they answer by level."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from offramp.models.data import Split
from offramp.models.distort import Images
from offramp.models.families import FAMILIES, Level, distort_mix
from offramp.models.router import LinearRouter, Router, SpectrumRouter
from offramp.models.weights import WeightsError, read_tensors, write_tensors

CHECKPOINT = "offramp-router-checkpoint-1"
Labelled = tuple[Images, npt.NDArray[np.int64]]
Progress = Callable[[str, int, int, float], None]  # what is trained, steps done, steps of all, validation accuracy


@dataclass(frozen=True, kw_only=True)
class RouterSpec:
    """How the routers are trained; equal spec and data give equal weights on one machine.

    Parameters
    ----------
    seed
        Of who gets which family, level and noise, of the first weights, and of the order.
    penalties
        Weight decays of the linear router to choose from by validation accuracy, each >= 0.
    epochs, batch, learning_rate
        Of the spectrum router: passes, images per step, Adam's rate at the start of a cosine.  The epoch of the best
        validation accuracy is kept.

    """

    seed: int
    penalties: tuple[float, ...]
    epochs: int
    batch: int
    learning_rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalties", tuple(float(p) for p in self.penalties))
        if not self.penalties or not all(0.0 <= p < math.inf for p in self.penalties):
            raise ValueError(f"penalties are {self.penalties}, allowed is at least one number >= 0")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 1 or more")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}, allowed is a finite number > 0")


def quarter_each(split: Split, *, seed: int) -> Labelled:
    """Put each image into one family, a quarter into each, distorted at a level drawn uniformly.

    Parameters
    ----------
    split
        Images as published.
    seed
        Who gets what; take another one for each split, since the noise is drawn from (seed, number of the image).

    Returns
    -------
    tuple
        Images (n, height, width, 3) uint8 and the position of each one's family in FAMILIES, (n,).

    """
    family = np.random.default_rng(seed).permutation(len(split.labels)) % len(FAMILIES)
    made = split.images.copy()
    for position, name in enumerate(FAMILIES):
        here = family == position
        made[here], _ = distort_mix(split.images[here], split.index[here], name, share=1.0, seed=seed)
    return made, family


def measured(router: Router, images: Images) -> Tensor:
    """What the router measures of many images."""
    return torch.cat([router.measure(part) for part in torch.from_numpy(images).split(500)])


def _standardise(router: Router, x: Tensor) -> None:
    router.mean = x.mean(0)
    router.scale = x.std(0).clamp(min=1e-6)


@torch.no_grad()
def _accuracy(router: Router, x: Tensor, y: Tensor) -> float:
    found = torch.cat([router.logits(part).argmax(1) for part in x.split(500)])
    return float((found == y).double().mean())


def fit_linear(training: Labelled, validation: Labelled, spec: RouterSpec, progress: Progress) -> LinearRouter:
    """Logistic regression by L-BFGS from zero, with the penalty that validation prefers."""
    router = LinearRouter(training[0].shape[1])
    x, y = measured(router, training[0]), torch.from_numpy(training[1])
    held, held_y = measured(router, validation[0]), torch.from_numpy(validation[1])
    _standardise(router, x)
    products = router.head.products((x - router.mean) / router.scale)  # once, not in every step
    weight, bias = router.head.weight, router.head.bias
    best, kept = -1.0, router.state_dict()
    for i, penalty in enumerate(spec.penalties):
        torch.nn.init.zeros_(weight)
        torch.nn.init.zeros_(bias)
        optimiser = torch.optim.LBFGS(router.head.parameters(), max_iter=150, line_search_fn="strong_wolfe")

        def loss(penalty: float = penalty, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            logits = functional.linear(products, weight, bias)
            value = functional.cross_entropy(logits, y) + penalty * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        accuracy = _accuracy(router, held, held_y)
        progress(f"linear, penalty {penalty:g}", i + 1, len(spec.penalties), accuracy)
        if accuracy > best:
            best, kept = accuracy, {name: tensor.clone() for name, tensor in router.state_dict().items()}
    router.load_state_dict(kept)
    return router.eval()


def fit_spectrum(
    training: Labelled, validation: Labelled, spec: RouterSpec, checkpoint: Path, progress: Progress
) -> SpectrumRouter:
    """Adam on cross-entropy, going on from `checkpoint` where it exists; the best epoch's weights.

    Raises
    ------
    WeightsError
        The checkpoint is damaged or belongs to another spec or other images.

    """
    torch.manual_seed(spec.seed)
    router = SpectrumRouter(training[0].shape[1])
    x, y = measured(router, training[0]), torch.from_numpy(training[1])
    held, held_y = measured(router, validation[0]), torch.from_numpy(validation[1])
    _standardise(router, x)
    identity = {"spec": {**asdict(spec), "penalties": list(spec.penalties)}, "images": len(y), "mean": float(x.mean())}
    optimiser = torch.optim.Adam(router.head.parameters(), lr=spec.learning_rate)
    per_epoch = math.ceil(len(y) / spec.batch)
    steps = spec.epochs * per_epoch
    done, best, kept = 0, -1.0, router.state_dict()
    if checkpoint.exists():
        tensors, header = read_tensors(checkpoint, CHECKPOINT)
        if header["identity"] != identity:
            raise WeightsError(
                f"{checkpoint}: it belongs to {header['identity']}, this run is {identity}; move it away"
            )
        done, best = header["epoch"], header["best"]
        router.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        kept = {k[5:]: v for k, v in tensors.items() if k.startswith("kept.")}
        for name, parameter in router.named_parameters():
            moments = {m: tensors[f"{m}.{name}"] for m in ("exp_avg", "exp_avg_sq")}
            optimiser.state[parameter] = {"step": torch.tensor(float(done * per_epoch)), **moments}
    for epoch in range(done, spec.epochs):
        order = torch.from_numpy(np.random.default_rng((spec.seed, epoch)).permutation(len(y)))
        for i, chosen in enumerate(order.split(spec.batch)):
            at = (epoch * per_epoch + i) / steps
            optimiser.param_groups[0]["lr"] = spec.learning_rate * 0.5 * (1.0 + math.cos(math.pi * at))
            optimiser.zero_grad()
            functional.cross_entropy(router.logits(x[chosen]), y[chosen]).backward()
            optimiser.step()
        accuracy = _accuracy(router, held, held_y)
        if accuracy > best:
            best, kept = accuracy, {name: tensor.clone() for name, tensor in router.state_dict().items()}
        state = {f"model.{k}": v for k, v in router.state_dict().items()} | {f"kept.{k}": v for k, v in kept.items()}
        for name, parameter in router.named_parameters():
            state |= {f"{m}.{name}": optimiser.state[parameter][m] for m in ("exp_avg", "exp_avg_sq")}
        write_tensors(checkpoint, state, {"identity": identity, "epoch": epoch + 1, "best": best}, CHECKPOINT)
        progress("spectrum", epoch + 1, spec.epochs, accuracy)
    router.load_state_dict(kept)
    return router.eval()


def confusion(router: Router, split: Split, levels: Iterable[Level], *, seed: int) -> list[dict[str, Any]]:
    """Count what the router answers for all images of a split at each level.

    Returns
    -------
    list
        One row for each level: corruption, level, its family, the share of images (in 0..1) sent to each of FAMILIES
        under "answers", and "right", the share sent to the level's own family.

    """
    rows = []
    for level in levels:
        answers = router(level(split.images, split.index, seed)).argmax(1)
        share = (torch.bincount(answers, minlength=len(FAMILIES)).double() / len(answers)).tolist()
        right = share[FAMILIES.index(level.family)]
        rows.append(
            {
                "corruption": level.corruption,
                "level": level.value,
                "family": level.family,
                "answers": dict(zip(FAMILIES, share, strict=True)),
                "right": right,
            }
        )
    return rows


def time_of(router: Router, images: Images, *, repeats: int) -> float:
    """Least microseconds per image of `repeats` calls on this many images at once."""
    router(images)
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        router(images)
        spent.append(time.perf_counter() - start)
    return 1e6 * min(spent) / len(images)
