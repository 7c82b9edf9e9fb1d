"""Expert exits: one set of exits for each family of distortions, over one frozen backbone."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.models.data import Split, normalise
from offramp.models.families import FAMILIES, distort_mix
from offramp.models.network import MultiExitNetwork
from offramp.models.weights import WeightsError, half_precision, model_hash, read_tensors, write_tensors

SCHEMA = "offramp-experts-1"
PART = "offramp-expert-1"
PRISTINE = FAMILIES[0]
Progress = Callable[[str, int, int], None]  # what, done, in all


class PooledHead(nn.Module):
    """An exit that reads means over a grid of cells and each channel's deviation, both standardised.

    What it pools has no weights, so on a frozen backbone it is pooled once, and heads are trained on that in seconds.

    Parameters
    ----------
    channels, classes
        Of the feature map; to tell apart.
    grid
        Cells along each side of the map.
    hidden
        Width of the layer in between, 0 = none.

    Notes
    -----
    The exits of arXiv 2108.09343 are one linear layer on means over 2 x 2 cells.  Here come the channels' deviations,
    which blur and noise change most, and the hidden layer.

    """

    def __init__(self, channels: int, classes: int, grid: int, hidden: int) -> None:
        super().__init__()
        self.grid = grid
        width = channels * (grid * grid + 1)
        self.norm = nn.BatchNorm1d(width, affine=False)
        layers: list[nn.Module] = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, classes))

    def pool(self, features: Tensor) -> Tensor:
        """What the head reads of a feature map (batch, channels, height, width): (batch, channels * (grid² + 1))."""
        height, width = features.shape[2:]
        if height % self.grid or width % self.grid:
            raise ValueError(f"a map of {height} x {width} pixels cannot be cut into {self.grid} x {self.grid} cells")
        # In this memory order averages over pixels run along whole rows of channels: 21 us an image for the seven exits
        # of MobileNetV2, against 346 with `adaptive_avg_pool2d` and `var`.
        features = features.contiguous(memory_format=torch.channels_last)
        cells = functional.avg_pool2d(features, (height // self.grid, width // self.grid)).flatten(2)
        squares = functional.avg_pool2d(features * features, (height, width)).flatten(1)
        variance = squares - cells.mean(2).square()
        return torch.cat([cells.flatten(1), variance.clamp(min=0.0).sqrt()], 1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (batch, classes) from what was pooled."""
        out: Tensor = self.layers(self.norm(pooled))
        return out

    def forward(self, features: Tensor) -> Tensor:
        """Logits (batch, classes) of a feature map."""
        return self.classify(self.pool(features))


class Experts(nn.Module):
    """Sets of exits over one network, one set for each family of distortions; the network's own are not among them.

    Parameters
    ----------
    network
        Whose backbone they share; it is not a part of this module's weights.
    families
        The experts in order, "pristine" first.
    grid, hidden
        Form of the exits, see `PooledHead`: cells along a side for each exit, first exit first; width in between.

    """

    def __init__(
        self, network: MultiExitNetwork, *, families: Sequence[str] = FAMILIES, grid: Sequence[int], hidden: int
    ) -> None:
        super().__init__()
        if not families or families[0] != PRISTINE or len(set(families)) != len(families):
            raise ValueError(f"families are {tuple(families)}, allowed are names that differ, {PRISTINE!r} first")
        self.families = tuple(families)
        if len(grid) != network.n_exits or min(grid, default=0) < 1 or hidden < 0:
            raise ValueError(
                f"grid is {tuple(grid)} and hidden {hidden}, "
                f"allowed are {network.n_exits} numbers of cells >= 1, and a width >= 0"
            )
        self.grid, self.hidden = tuple(grid), hidden
        with torch.no_grad():
            maps = list(network.eval().maps(torch.zeros(1, *network.input_shape)))
            classes = network.heads[-1](maps[-1]).shape[1]
        self._network = [network]  # in a list, so that it is not registered as a part
        self.sets = nn.ModuleDict(
            {
                family: nn.ModuleList(
                    PooledHead(x.shape[1], classes, g, hidden) for x, g in zip(maps, self.grid, strict=True)
                )
                for family in self.families
            }
        )

    @property
    def network(self) -> MultiExitNetwork:
        """The network whose backbone they share."""
        return self._network[0]

    def __getitem__(self, family: str) -> Sequence[nn.Module]:
        """The L exits of one expert."""
        if family not in self.families:
            raise KeyError(f"expert is {family!r}, allowed are {self.families}")
        return list(self.sets[family])  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of every exit of every expert in one pass of the backbone, (batch, E, L, classes)."""
        if x.shape[1:] != self.network.input_shape:
            raise ValueError(f"images have shape {tuple(x.shape)}, allowed is (batch, *{self.network.input_shape})")
        exits = []
        for i, features in enumerate(self.network.maps(x)):
            heads: list[PooledHead] = [self[family][i] for family in self.families]  # type: ignore[misc]
            pooled = heads[0].pool(features)
            exits.append(torch.stack([head.classify(pooled) for head in heads], 1))
        return torch.stack(exits, 2)

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write the heads in half precision; the backbone is not among them."""
        form = {
            "families": self.families,
            "grid": self.grid,
            "hidden": self.hidden,
            "backbone": model_hash(self.network),
        }
        write_tensors(path, half_precision(self), {**form, "card": dict(card)}, SCHEMA)

    @classmethod
    def load(cls, network: MultiExitNetwork, path: Path) -> "Experts":
        """Read the heads that were trained over this network.

        Raises
        ------
        WeightsError
            The file is damaged, or belongs to another network.

        """
        state, header = read_tensors(path, SCHEMA)
        try:
            experts = cls(network, families=header["families"], grid=header["grid"], hidden=header["hidden"])
        except ValueError as error:
            raise WeightsError(f"{path} belongs to a network with other exits ({error})") from error
        if header["backbone"] != model_hash(network):
            raise WeightsError(f"{path} belongs to a network with other weights")
        wanted = {k: v.shape for k, v in half_precision(experts).items()}
        if wanted != {k: v.shape for k, v in state.items()}:
            raise WeightsError(f"{path} belongs to a network with other exits")
        experts.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
        return experts.eval()


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """How an expert's exits are trained.

    Parameters
    ----------
    copies
        Times that each training image is pooled, each time distorted anew, every second time mirrored.
    share
        Probability that an image is distorted, its level drawn uniformly.
    epochs, batch, learning_rate, weight_decay
        AdamW on a cosine to zero.
    seed
        Seed of distortions, weights and order.

    Notes
    -----
    arXiv 2108.09343 uses Adam at .01 with batches of 32, and stops after ten epochs without a better validation loss,
    with the backbone's batch-norm statistics still moving.  Here they stay as they are: the backbone is shared.

    """

    copies: int = 2
    share: float = 0.5
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("copies", 1), ("epochs", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}, allowed is a whole number, {least} or more")
        if not 0.0 < self.learning_rate < math.inf or not 0.0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"learning_rate is {self.learning_rate} and weight_decay {self.weight_decay}, "
                f"allowed are finite numbers, the first > 0, the second >= 0"
            )
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share is {self.share}, allowed is above 0 and at most 1")


@torch.no_grad()
def pooled(
    experts: Experts, split: Split, family: str, spec: ExpertSpec, progress: Progress, chunk: int = 500
) -> list[Tensor]:
    """What the exits of one expert read of the images under its mix of levels, (n * copies, width) float16 for each."""
    heads: Sequence[PooledHead] = experts[family]  # type: ignore[assignment]
    total = spec.copies * len(split.labels)
    out = [torch.empty(total, head.norm.num_features, dtype=torch.float16) for head in heads]
    at = 0
    for copy in range(spec.copies):
        for start in range(0, len(split.labels), chunk):
            part = slice(start, start + chunk)
            seed = spec.seed * 1_000 + copy
            images, _ = distort_mix(split.images[part], split.index[part], family, share=spec.share, seed=seed)
            x = normalise(images)
            maps = experts.network.maps(x.flip(3) if copy % 2 else x)
            for rows, head, features in zip(out, heads, maps, strict=True):
                rows[at : at + len(images)] = head.pool(features).half()
            at += len(images)
            progress(f"{family}: pooling", at, total)
    return out


def fit(head: PooledHead, inputs: Tensor, labels: Tensor, spec: ExpertSpec) -> None:
    """Train one exit on what it reads, (n, width); the standardisation is that of the inputs."""
    values = inputs.float()
    deviation, mean = torch.std_mean(values, 0)
    del values
    head.norm.running_mean = mean
    head.norm.running_var = (deviation + 1e-3) ** 2
    head.norm.eval()
    torch.manual_seed(spec.seed)
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimiser = torch.optim.AdamW(head.layers.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    steps = spec.epochs * -(-len(labels) // spec.batch)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(spec.epochs):
        for rows in torch.randperm(len(labels)).split(spec.batch):
            loss = functional.cross_entropy(head.classify(inputs[rows].float()), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cosine.step()


def train_experts(
    experts: Experts, split: Split, spec: ExpertSpec, folder: Path, progress: Progress, families: Iterable[str] = ()
) -> Experts:
    """Train every expert, the pristine one on images as they are; goes on after the last that is there.

    Parameters
    ----------
    experts, split, spec
        Whose exits, on which images, how.
    folder
        Holds one file per finished expert.
    progress
        Called with what is being done, how far, of how much.
    families
        Only these, where given.

    Raises
    ------
    WeightsError
        A file in the folder belongs to another network, another spec or other images.

    """
    identity = {
        "network": model_hash(experts.network),
        "spec": asdict(spec),
        "data": split.hash,
        "grid": list(experts.grid),
        "hidden": experts.hidden,
    }
    experts.network.eval()
    labels = torch.from_numpy(split.labels).repeat(spec.copies)
    for family in families or experts.families:
        path = folder / f"{family}.safetensors"
        heads: nn.ModuleList = experts.sets[family]  # type: ignore[assignment]
        if path.exists():
            state, header = read_tensors(path, PART)
            if header != identity:
                raise WeightsError(f"{path} belongs to another run ({header['spec']}); move it away")
            heads.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
            continue
        inputs = pooled(experts, split, family, spec, progress)
        for i, head in enumerate(heads):
            fit(head, inputs[i], labels, spec)
            progress(f"{family}: training", i + 1, len(heads))
        write_tensors(path, half_precision(heads), identity, PART)
        heads.load_state_dict({k: v.float() for k, v in half_precision(heads).items()}, strict=False)
    return experts.eval()


def evaluate_experts(experts: Experts, split: Split, progress: Progress) -> dict[str, dict[str, list[list[float]]]]:
    """Accuracy of each exit of each expert on pristine images, and on images of each family, all of them distorted.

    Returns family -> expert -> [accuracy, mean confidence] of each exit, in [0, 1].
    """
    labels = torch.from_numpy(split.labels)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for done, family in enumerate(experts.families, 1):
        images, _ = distort_mix(split.images, split.index, family, share=1.0, seed=77_077)
        logits = torch.cat([experts(normalise(images[i : i + 500])) for i in range(0, len(images), 500)])
        best, guess = logits.softmax(-1).max(-1)
        right = (guess == labels[:, None, None]).float().mean(0)
        found[family] = {
            expert: [[round(float(a), 4), round(float(c), 4)] for a, c in zip(right[e], best.mean(0)[e], strict=True)]
            for e, expert in enumerate(experts.families)
        }
        progress("evaluating", done, len(experts.families))
    return found


def render_card(name: str, header: Mapping[str, Any], found: Mapping[str, Mapping[str, list[list[float]]]]) -> str:
    """The experts' card as Markdown."""
    exits = len(next(iter(next(iter(found.values())).values())))
    lines = [f"# Card: {name}", "", "Written by `offramp experts`; do not edit.", "", "| field | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in header.items()]
    lines += ["", "Accuracy / mean confidence by exit, every image distorted at a level drawn uniformly.", ""]
    lines += ["| images | expert | " + " | ".join(f"exit {i + 1}" for i in range(exits)) + " |"]
    lines += ["|---" * (exits + 2) + "|"]
    for family, experts in found.items():
        for expert, values in experts.items():
            cells = " | ".join(f"{a:.3f} / {c:.2f}" for a, c in values)
            lines.append(f"| {family} | {expert} | {cells} |")
    return "\n".join(lines) + "\n"
