"""The images that a program works on, as its configuration names them."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from offramp.models.data import Split


def splits_of(cfg: DictConfig, *, evenly: bool = False) -> dict[str, Split]:
    """The splits of `cfg.data`; where `cfg.images` is given, so many images of each.

    Parameters
    ----------
    cfg
        With `data`, which makes the splits, and `images`.
    evenly
        Take few images evenly apart in place of the first ones, where class follows class.

    """
    splits: dict[str, Split] = instantiate(cfg.data)
    if cfg.images is None:
        return splits
    return {part: split.spread(cfg.images) if evenly else split.take(cfg.images) for part, split in splits.items()}
