"""Weights on disk: half-precision safetensors with the model card in the header, written atomically, never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

SCHEMA = "offramp-weights-1"
HERE = Path(__file__).parent


class WeightsError(ValueError):
    """A weights file or checkpoint cannot be used; the message names the file, what is wrong and what is allowed."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], schema: str) -> None:
    """Write tensors and a JSON header so that the file is either the old one or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    packed = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(packed, str(partial), metadata={"schema": schema, "header": json.dumps(header)})
    partial.replace(path)


def read_tensors(path: Path, schema: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or of another schema.

    """
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("schema") != schema:
                raise WeightsError(f"{path}: schema is {meta.get('schema')!r}, allowed is {schema!r}")
            names = file.keys()  # not a mapping: it cannot be iterated itself
            return {name: file.get_tensor(name) for name in names}, json.loads(meta["header"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not a readable file of schema {schema!r} ({error})") from error


def half_precision(network: nn.Module) -> dict[str, Tensor]:
    """The network's state as float16, without the counters that only training needs.

    Raises
    ------
    WeightsError
        A value does not fit into float16.

    """
    state = {k: v.half() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"weight {name} leaves the range of float16 (largest allowed magnitude 65504)")
    return state


def model_hash(network: nn.Module) -> str:
    """SHA-256 over half-precision weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(half_precision(network).items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_weights(network: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
    """Write the network in half precision with its card in the header, and the card as text beside it."""
    write_tensors(path, half_precision(network), card, SCHEMA)
    path.with_suffix(".md").write_text(render_card(path.stem, card), encoding="utf-8")


def load_weights(network: nn.Module, path: Path) -> dict[str, Any]:
    """Fill the network from a weights file and return its card."""
    state, card = read_tensors(path, SCHEMA)
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    if wanted.keys() != state.keys():
        odd = sorted(wanted.keys() ^ state.keys())
        raise WeightsError(f"{path}: {len(odd)} tensors do not belong to this network, the first is {odd[0]!r}")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, allowed is {tuple(wanted[name].shape)}"
            )
    network.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    return card


def read_card(path: Path, schema: str) -> Any:
    """The card in the header of a file that is one part of a network."""
    return read_tensors(path, schema)[1]["card"]


def render_card(name: str, card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    rows = [
        f"# Model card: {name}",
        "",
        "Written by `offramp train`; do not edit.",
        "",
        "| field | value |",
        "|---|---|",
    ]
    rows += [f"| {key} | {value} |" for key, value in card.items() if key != "exits"]
    rows += ["", "| exit | " + " | ".join(card["exits"][0]) + " |", "|---" * (len(card["exits"][0]) + 1) + "|"]
    rows += [f"| {i} | " + " | ".join(f"{v:.4f}" for v in e.values()) + " |" for i, e in enumerate(card["exits"], 1)]
    return "\n".join(rows) + "\n"
