"""Makes Hydra know our launcher and our sweeper; their configurations lie in conf/hydra."""

from hydra.core.plugins import Plugins

from offramp.experiments.sweeps.on_ray import RayLauncher
from offramp.experiments.sweeps.tuning import OptunaSweeper

NAMESPACE = "hydra_plugins.offramp"  # Hydra makes no plugin whose configured name begins otherwise


def register() -> None:
    """Make them known; again does no harm."""
    plugins = Plugins.instance()
    for plugin in (RayLauncher, OptunaSweeper):
        plugins.register(plugin)
        plugins.class_name_to_class[f"{NAMESPACE}.{plugin.__name__}"] = plugin
