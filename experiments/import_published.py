"""`offramp import`: per-sample results that others have published in, confidence cache and account out."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.environments import CacheError
from offramp.environments.published import joined, read_published

_VALUED = ("-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir", "-p", "--package", "-c", "--cfg")


def run(cfg: DictConfig) -> Path:
    """Read the files, print what was found, and return the path of the cache.

    Raises
    ------
    CacheError
        A file cannot be read, or the files do not belong together; nothing is written.

    """
    options: Any = OmegaConf.to_container(cfg)
    files = [Path(str(name)) for name in options["files"]]
    if not files:
        raise CacheError("files are none, allowed is one or more: offramp import FILE... [out=cache.safetensors]")
    out = Path(files[0].name.split(".")[0] + ".safetensors") if cfg.out is None else Path(cfg.out)
    if out.suffix != ".safetensors":
        raise CacheError(f"out is {out}, allowed are names that end in .safetensors")
    if out.resolve() in [path.resolve() for path in files]:
        raise CacheError(f"out is {out}, allowed is another file than those read")
    asked = {name: options[name] for name in ("layout", "where", "classes", "layers")}
    read = [read_published(path, **asked) for path in files]
    cache = joined(read)
    out.parent.mkdir(parents=True, exist_ok=True)
    cache.save(out)
    console = Console(highlight=False, soft_wrap=True)
    for _, report in read:
        console.print(str(report), markup=False)
    console.print(f"cache: {out}, {out.stat().st_size / 1e6:.2f} MB", markup=False)
    return out


@hydra.main(config_path="pkg://offramp.conf", config_name="import", version_base="1.3")
def program(cfg: DictConfig) -> None:
    """The Hydra program behind `main`."""
    try:
        run(cfg)
    except CacheError as error:
        sys.exit(f"offramp import: {error}")


def overrides(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them: what is neither an option nor key=value is a file, and so is what exists.

    Examples
    --------
    >>> overrides(["max_exits(3,6).csv", "layout=ceebert"])
    ['layout=ceebert', "files=['max_exits(3,6).csv']"]

    """
    files, others = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        plain = not argument.startswith("-") and before not in _VALUED
        if plain and ("=" not in argument or Path(argument).is_file()):
            files.append(argument)
        else:
            others.append(argument)
    if not files:
        return others
    quoted = ",".join("'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'" for name in files)
    return [*others, f"files=[{quoted}]"]


def main() -> None:
    """Entry point of `offramp import`."""
    sys.argv[1:] = overrides(sys.argv[1:])
    program()


if __name__ == "__main__":
    main()
