"""Trains a network with exits: the weighted sum of all exits' losses, a checkpoint every epoch, exact resume."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.models import torchvision_ops
from offramp.models.data import Split, normalise
from offramp.models.network import MultiExitNetwork
from offramp.models.weights import WeightsError, read_tensors, write_tensors

torchvision_ops.ensure()
from torchvision.transforms.v2.functional import resize  # noqa: E402  (its operators must be declared first)

Images = npt.NDArray[np.uint8]  # (n, height, width, 3)
CHECKPOINT = "offramp-checkpoint-1"
Progress = Callable[[int, int, int, float], None]  # epoch, batches done, batches in the epoch, loss


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What a training run does; two runs with equal spec and data give equal weights on one machine.

    Parameters
    ----------
    epochs, batch, seed
        Passes over the training images; images per step; seed of weights, order, crops and dropout.
    learning_rate, warmup, momentum, weight_decay
        Nesterov SGD: the rate rises linearly to `learning_rate` over the first `warmup` share of all steps, in (0, 1),
        and falls to zero on a cosine.  Biases and batch-norm parameters are not decayed.
    loss_weights
        Weight of each exit's cross-entropy, first exit first.
    crop, small_crop, small_epochs
        Side in pixels of the random crop (images are padded by 4); the first `small_epochs` epochs use `small_crop`,
        which costs less and regularises.
    least_area
        For photographs: in place of a padded crop, a random part of each image with at least this share of its area,
        in (0, 1], of 3:4 to 4:3, scaled to the side; None = the padded crop.
    frozen
        Train the exits alone: all but the last, which is the network's own classifier.  The segments and it stay as
        they are, batch-norm statistics included.

    """

    epochs: int
    batch: int = 128
    seed: int = 0
    learning_rate: float = 0.1
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss_weights: tuple[float, ...]
    crop: int
    small_crop: int = 0
    small_epochs: int = 0
    least_area: float | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss_weights", tuple(float(w) for w in self.loss_weights))
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 1 or more")
        if not 0.0 < self.warmup < 1.0:
            raise ValueError(f"warmup is {self.warmup}, allowed is a share between 0 and 1")
        if not all(w >= 0.0 for w in self.loss_weights) or sum(self.loss_weights) <= 0.0:
            raise ValueError(f"loss_weights are {self.loss_weights}, allowed are weights >= 0 that are not all 0")
        if self.least_area is not None and not 0.0 < self.least_area <= 1.0:
            raise ValueError(f"least_area is {self.least_area}, allowed is a share above 0 and up to 1, or None")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one step out of all steps of the run."""
        rise = max(1.0, self.warmup * steps)
        if step < rise:
            return min(self.learning_rate, self.learning_rate * (step + 1) / rise)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def batches(split: Split, spec: TrainSpec, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, cropped and mirrored batches, drawn from (seed, epoch) alone."""
    rng = np.random.default_rng((spec.seed, epoch))
    side = spec.small_crop if epoch < spec.small_epochs else spec.crop
    order = rng.permutation(len(split.labels))
    for start in range(0, len(order), spec.batch):
        chosen = order[start : start + spec.batch]
        if spec.least_area is None:
            images = _padded_crops(split.images[chosen], side, rng)
        else:
            images = _scaled_crops(split.images[chosen], side, spec.least_area, rng)
        yield normalise(images), torch.from_numpy(split.labels[chosen])


def _padded_crops(images: Images, side: int, rng: np.random.Generator) -> Images:
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    top, left = rng.integers(0, padded.shape[1] - side + 1, (2, len(images), 1))
    columns = left + np.arange(side)
    columns = np.where(rng.random((len(images), 1)) < 0.5, columns[:, ::-1], columns)
    rows = top + np.arange(side)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _scaled_crops(images: Images, side: int, least_area: float, rng: np.random.Generator) -> Images:
    height, width = images.shape[1:3]
    area, shape, down, across, mirror = rng.random((5, len(images)))
    ratio = np.exp((2.0 * shape - 1.0) * math.log(4.0 / 3.0))
    share = least_area + (1.0 - least_area) * area
    rows = np.minimum(height, np.rint(np.sqrt(share / ratio) * height)).astype(int)
    columns = np.minimum(width, np.rint(np.sqrt(share * ratio) * width)).astype(int)
    made = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = int(down[i] * (height - rows[i] + 1)), int(across[i] * (width - columns[i] + 1))
        part = torch.from_numpy(image[top : top + rows[i], left : left + columns[i]]).permute(2, 0, 1)
        scaled = resize(part, [side, side], antialias=True).permute(1, 2, 0).numpy()
        made[i] = scaled[:, ::-1] if mirror[i] < 0.5 else scaled
    return made


def _learning(network: MultiExitNetwork, spec: TrainSpec) -> dict[str, nn.Parameter]:
    """Switch to training what is to be trained, and name its weights; the rest is switched to evaluation."""
    network.train()
    if not spec.frozen:
        return dict(network.named_parameters())
    for part in (*network.segments, network.heads[-1]):
        part.eval()
    kept = {p for part in (*network.segments, network.heads[-1]) for p in part.parameters()}
    return {name: p for name, p in network.named_parameters() if p not in kept}


def _optimiser(learning: Mapping[str, nn.Parameter], spec: TrainSpec) -> torch.optim.SGD:
    decayed = [p for p in learning.values() if p.ndim > 1]
    plain = [p for p in learning.values() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=True)


def _momentum(learning: Mapping[str, nn.Parameter], optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    # What no gradient reached, as weights that a forward leaves out, has no momentum.
    return {name: optimiser.state[p].get("momentum_buffer", torch.zeros_like(p)) for name, p in learning.items()}


def _answers(network: MultiExitNetwork, x: Tensor, spec: TrainSpec) -> Tensor:
    """Logits of every exit, (batch, L, classes); of a frozen network no gradient is kept before its exits."""
    if not spec.frozen:
        return network(x)  # type: ignore[no-any-return]
    with torch.no_grad():
        maps = list(network.maps(x))
    return torch.stack([head(features) for head, features in zip(network.heads, maps, strict=True)], 1)


def train(
    build: Callable[[], MultiExitNetwork], split: Split, spec: TrainSpec, checkpoint: Path, progress: Progress
) -> MultiExitNetwork:
    """Train to the last epoch, going on from `checkpoint` where it exists.

    Parameters
    ----------
    build
        Makes the network; called after the seed is set.
    split
        The training images.
    spec, checkpoint, progress
        What to do; the file that is rewritten after every epoch; called after every batch.

    Raises
    ------
    WeightsError
        The checkpoint is damaged, or belongs to another spec, other images or another network.

    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(spec.seed)
    network = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if len(spec.loss_weights) != network.n_exits:
        raise ValueError(f"{len(spec.loss_weights)} loss_weights, but the network has {network.n_exits} exits")
    learning = _learning(network, spec)
    if not learning:
        raise ValueError("frozen is True, allowed with exits before the last that have weights")
    optimiser = _optimiser(learning, spec)
    identity: dict[str, Any] = {"spec": {**asdict(spec), "loss_weights": list(spec.loss_weights)}, "data": split.hash}
    done = 0
    if checkpoint.exists():
        tensors, header = read_tensors(checkpoint, CHECKPOINT)
        for field, mine in identity.items():
            if header[field] != mine:
                raise WeightsError(f"{checkpoint}: its {field} is {header[field]}, this run's is {mine}; move it away")
        wanted = {f"model.{k}": v.shape for k, v in network.state_dict().items()}
        wanted |= {f"momentum.{k}": p.shape for k, p in learning.items()}
        if {k: v.shape for k, v in tensors.items()} != wanted:
            raise WeightsError(f"{checkpoint} belongs to another network; move it away")
        network.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in learning.items():
            optimiser.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"]
        done = int(header["epoch"])
    per_epoch = math.ceil(len(split.labels) / spec.batch)
    weights = torch.tensor(spec.loss_weights)
    for epoch in range(done, spec.epochs):
        torch.manual_seed(spec.seed * 100_003 + epoch + 1)  # dropout too is drawn from (seed, epoch)
        for i, (x, y) in enumerate(batches(split, spec, epoch)):
            for group in optimiser.param_groups:
                group["lr"] = spec.rate(epoch * per_epoch + i, spec.epochs * per_epoch)
            answers = _answers(network, x, spec).unbind(1)
            losses = torch.stack([functional.cross_entropy(logits, y) for logits in answers])
            loss = (weights * losses).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            progress(epoch, i + 1, per_epoch, loss.item())
        state = {f"model.{k}": v for k, v in network.state_dict().items()}
        state |= {f"momentum.{k}": v for k, v in _momentum(learning, optimiser).items()}
        write_tensors(checkpoint, state, {**identity, "epoch": epoch + 1}, CHECKPOINT)
    network.eval()
    return network


@torch.no_grad()
def evaluate(network: MultiExitNetwork, split: Split, batch: int = 500) -> list[dict[str, float]]:
    """Accuracy and mean confidence of every exit, both in [0, 1], first exit first."""
    network.eval()
    correct = torch.zeros(network.n_exits)
    confidence = torch.zeros(network.n_exits, dtype=torch.float64)
    for start in range(0, len(split.labels), batch):
        probability = network(normalise(split.images[start : start + batch])).softmax(-1)
        best, guess = probability.max(-1)
        correct += (guess == torch.from_numpy(split.labels[start : start + batch])[:, None]).sum(0)
        confidence += best.double().sum(0)
    n = len(split.labels)
    return [
        {"accuracy": float(a) / n, "mean confidence": float(c) / n} for a, c in zip(correct, confidence, strict=True)
    ]
