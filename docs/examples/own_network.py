"""Your own network: exits trained, a cache extracted, policies compared: `python own_network.py FOLDER`."""

import sys
from pathlib import Path

from own_resnet import ResNet  # your own, trained or not

from offramp.bandits import UCB1, Arms, FinalExit, MacsAndBytes, SplitEES
from offramp.environments import Abrupt, World, rollout
from offramp.models.distort import Distortion
from offramp.models.image_folder import image_folder
from offramp.models.plain_extract import extract_plain
from offramp.models.split import with_exits
from offramp.models.train import TrainSpec, train

out, clear = Path("own_network"), Distortion(name="clear", corruption="pristine")
blurred = Distortion(name="blurred", corruption="gaussian_blur", parameters={"sigma": 1.0})

splits = image_folder(sys.argv[1], size=32, held_out=200)  # FOLDER/train/CLASS and FOLDER/val/CLASS
classes = int(splits["train"].labels.max()) + 1
spec = TrainSpec(epochs=5, batch=32, loss_weights=(0.5, 0.5, 1.0), crop=32)
network = train(
    lambda: with_exits(ResNet(classes), ["blocks.2", "blocks.5"], input_shape=(3, 32, 32)),  # behind these, and its own
    splits["train"],
    spec,
    out / "checkpoint.safetensors",
    lambda epoch, batch, batches, loss: batch == batches and print(f"epoch {epoch + 1}: loss {loss:.3f}"),
)
told = "{}: {} of {} images passed through".format
found = extract_plain(network, splits, [clear, blurred], out / "parts", lambda *at: print(told(*at)))
cache = found.cache(found.split >= 0, notes={})
cache.save(out / "cache.safetensors")  # for `offramp compare cache=FILE`
world = World(cache=cache.part("test").calibrated("exit"), prices=MacsAndBytes(), arms=Arms.grid(exits=3))
stream = Abrupt(segments=(("clear", 1.0), ("blurred", 1.0)))
for policy in (FinalExit(), SplitEES(threshold=0.8), UCB1()):
    trace, _ = rollout(policy, world, stream, horizon=20_000, seed=0)
    cost, accuracy = trace.cost[-1] / 20_000, trace.mean("correct")
    print(f"{type(policy).__name__}: {cost:.3f} cost units an image, accuracy {accuracy:.3f}")
