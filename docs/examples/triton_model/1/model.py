"""Triton's Python backend: one instance of the model owns the engine, and learns from each image that it answers."""

import numpy as np
import triton_python_backend_utils as triton

from offramp.bandits import Arms, MacsAndBytes, Observation, SplitEES
from offramp.bandits.durable import DurableEngine
from offramp.environments import ConfidenceCache


class TritonPythonModel:
    def initialize(self, arguments):
        cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")  # stands for your network
        self.exits, self.quote = cache.confidence[0, 0], MacsAndBytes().quote(cache.profile)
        self.engine = DurableEngine("triton_model.db", SplitEES(threshold=0.8), arms=Arms.grid(exits=7))

    def execute(self, requests):  # DLPack, since Triton 2.51 and NumPy 2 disagree about as_numpy
        images = [np.from_dlpack(triton.get_input_tensor_by_name(request, "IMAGE"))[0] for request in requests]
        exits = [np.array([self.classify(image)]) for image in images]
        return [triton.InferenceResponse([triton.Tensor.from_dlpack("EXIT", at)]) for at in exits]

    def classify(self, image):
        ticket = self.engine.decide(self.quote)
        seen = np.where(np.arange(7) < ticket.cut, self.exits[image], np.nan)  # the edge; nan: not computed
        at = ticket.cut if seen[ticket.cut - 1] >= ticket.threshold else 7
        seen[at - 1] = self.exits[image, at - 1]  # where at is 7: the cloud
        self.engine.update(ticket, Observation(confidence=seen, answered_at=at, offloaded=at > ticket.cut))
        return at
