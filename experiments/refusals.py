"""What a program refuses is said in one line, without a traceback."""

import functools
import os
import sys
from collections.abc import Callable

from omegaconf import DictConfig


def in_one_line(program: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Let a Hydra program end with the message of what it refused; `HYDRA_FULL_ERROR=1` shows where as well."""

    @functools.wraps(program)
    def run(cfg: DictConfig) -> None:
        try:
            program(cfg)
        except (ValueError, OSError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")  # noqa: PTH119  (a name for people, not a path)

    return run
