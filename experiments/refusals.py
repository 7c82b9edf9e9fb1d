"""What a program refuses: whole numbers out of range; and each refusal in one line, without a traceback."""

import functools
import os
import sys
from collections.abc import Callable, Mapping

from omegaconf import DictConfig, OmegaConf


def whole_numbers(cfg: DictConfig, least: Mapping[str, int]) -> None:
    """Refuse a configuration where one of these, by its path with dots, is no whole number or below its least.

    Raises
    ------
    ValueError
        The message has the name, the value, and what is allowed.

    """
    for name, allowed in least.items():
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < allowed:
            raise ValueError(f"{name} is {value!r}, allowed is a whole number, {allowed} or more")


def in_one_line(program: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Let a Hydra program end with the message of what it refused; `HYDRA_FULL_ERROR=1` shows where as well."""

    @functools.wraps(program)
    def run(cfg: DictConfig) -> None:
        try:
            if missing := sorted(OmegaConf.missing_keys(cfg)):
                raise ValueError(f"{missing[0]} is missing, allowed is a value of your own: {missing[0]}=...")
            program(cfg)
        except (ValueError, OSError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")  # noqa: PTH119  (a name for people, not a path)

    return run
