"""Follows a module's forward once, as a graph, and cuts that graph into segments at named modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, fx, nn

UNTRACEABLE = (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
Shape = tuple[int, ...]


class SplitError(ValueError):
    """A network cannot be split as asked; the message names the cut point, what was found and what is allowed."""


class _Root(nn.Module):
    """Hands one input on, so that whatever else the model could be given takes its default."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class _Follower(fx.Tracer):
    """Looks into those modules alone that hold a cut point; all others stay whole, whatever they do inside."""

    def __init__(self, opened: set[nn.Module]) -> None:
        super().__init__()
        self._opened = opened
        self.gave: dict[nn.Module, object] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self._opened

    def call_module(self, m: nn.Module, forward: object, args: object, kwargs: object) -> object:
        out = super().call_module(m, forward, args, kwargs)  # type: ignore[arg-type]
        self.gave[m] = out  # of a module that is called several times the last call counts
        return out


class _Shapes(fx.Interpreter):
    """Notes the shape of every value, and what writes into a value that it reads."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(root, graph))
        self.found: dict[str, Shape] = {}
        self.writes: set[str] = set()

    def run_node(self, n: fx.Node) -> object:
        read = [value for given in n.all_input_nodes if isinstance(value := self.env[given], Tensor)]
        # PyTorch counts the writes into a tensor and all of its views, but in inference mode.
        before = [0 if value.is_inference() else value._version for value in read]
        out = super().run_node(n)
        if before != [0 if value.is_inference() else value._version for value in read]:
            self.writes.add(n.name)
        if isinstance(out, Tensor):
            self.found[n.name] = tuple(out.shape)
        return out


class Followed:
    """A model's forward as a graph.

    Parameters
    ----------
    model
        Reads one tensor, gives one; in evaluation mode.
    names
        Modules whose outputs are asked for, as `model.get_submodule` knows them.
    x
        An input; shapes are noted on it.

    Raises
    ------
    SplitError
        There is no such module, it is not reached, a forward that calls it cannot be followed, or what it writes into
        a value would get lost, since nothing reads the result.

    """

    def __init__(self, model: nn.Module, names: Sequence[str], x: Tensor) -> None:
        self._root = _Root(model)
        opened: set[nn.Module] = {self._root, model}
        for name in names:
            parts = name.split(".")
            try:
                model.get_submodule(name)
            except AttributeError as error:
                known = [n for n, _ in model.named_modules() if n and n.count(".") <= name.count(".")]
                raise SplitError(f"cut point is {name!r}, allowed are {known[:40]} and modules in them") from error
            opened |= {model.get_submodule(".".join(parts[:i])) for i in range(1, len(parts))}
        # A cut point may hold another one: then it is looked into, and its output is known all the same.
        follower = _Follower(opened)
        try:
            self._graph = follower.trace(self._root)
        except UNTRACEABLE as error:
            raise SplitError(
                f"a forward that calls one of {list(names)} cannot be followed ({error}); allowed is one whose path "
                "does not hang on values: name modules further out, whose inside is not looked into"
            ) from error
        self.input, self.output = self._ends()
        self.cuts = {name: self._value(follower, model.get_submodule(name), name) for name in names}
        shapes = _Shapes(self._root, self._graph)
        shapes.run(x)
        self._shapes = shapes.found
        lost = [self.called(node) for node in self._unneeded() if node.name in shapes.writes]
        if lost:
            raise SplitError(
                f"{', '.join(lost)} writes into what it reads, and nothing reads what it gives; allowed is to read "
                "that, as in `x = x.relu_()`"
            )

    @property
    def unread(self) -> list[str]:
        """What computes tensors from the input that the output is not computed from."""
        found = self._from(self.input)
        return [self.called(node) for node in self._unneeded() if node in found and self.shape(node)]

    def _unneeded(self) -> list[fx.Node]:
        needed = {*self._needed(self.input, self.output), self.input}
        return [node for node in self._graph.nodes if node.op != "output" and node not in needed]

    def _ends(self) -> tuple[fx.Node, fx.Node]:
        nodes = list(self._graph.nodes)
        given = nodes[-1].args[0]
        if not isinstance(given, fx.Node):
            raise SplitError(f"the model gives a {type(given).__name__}, allowed is one tensor (batch, classes)")
        return nodes[0], given

    @staticmethod
    def _value(follower: _Follower, module: nn.Module, name: str) -> fx.Node:
        if module not in follower.gave:
            raise SplitError(f"cut point {name!r} is never called, allowed is a module that every input passes")
        value = follower.gave[module]
        if not isinstance(value, fx.Proxy):
            raise SplitError(f"cut point {name!r} gives a {type(value).__name__}, allowed is one tensor")
        return value.node

    def shape(self, node: fx.Node) -> Shape:
        """Shape of a value; () for what is no tensor."""
        return self._shapes.get(node.name, ())

    def around(self, start: fx.Node, end: fx.Node) -> str | None:
        """None where `end` hangs on the input through `start` alone; else what else leads from the input to it."""
        behind = self._from(start)
        if end not in behind:
            return f"{self.called(end)} does not come behind it"
        reached = self._from(self.input)
        for node in self._needed(start, end):
            for given in node.all_input_nodes:
                if node in behind and given in reached and given not in behind:
                    return f"{self.called(node)} also reads {self.called(given)}"
        return None

    def dominators(self, start: fx.Node, end: fx.Node) -> list[fx.Node]:
        """Values between two others that all of the way from the one to the other leads through, in order."""
        return [
            node
            for node in self._needed(start, end)
            if node is not end and self.around(start, node) is None and self.around(node, end) is None
        ]

    def bears_weights(self, node: fx.Node) -> bool:
        """Is the value made by a module with parameters, or out of a parameter?"""
        if node.op == "call_module":
            return any(True for _ in self._root.get_submodule(str(node.target)).parameters())
        return any(given.op == "get_attr" for given in node.all_input_nodes)

    def segment(self, start: fx.Node, end: fx.Node, *, tokens: tuple[bool, bool]) -> fx.GraphModule:
        """What computes `end` from `start`, as a module that shares the model's weights.

        `tokens` says whether start and end are (batch, tokens, width); outside the segment such a value is
        (batch, width, tokens, 1), as feature maps are.
        """
        graph = fx.Graph()
        made = {start: graph.placeholder("x")}
        if tokens[0]:
            flat = graph.call_method("squeeze", (made[start], -1))
            made[start] = graph.call_method("transpose", (flat, 1, 2))
        for node in self._needed(start, end):
            made[node] = graph.node_copy(node, lambda n: made[n])
            if node.op in ("call_module", "get_attr"):
                made[node].target = str(node.target).removeprefix("model.")
        out = made[end]
        if tokens[1]:
            turned = graph.call_method("transpose", (out, 1, 2))
            out = graph.call_method("unsqueeze", (turned, -1))
        graph.output(out)
        return fx.GraphModule(self._root.model, graph, class_name="Segment")

    def called(self, node: fx.Node) -> str:
        """What a reader knows a value by: the module that gives it, or the function."""
        if node is self.input:
            return "the input"
        target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
        return repr(str(target).removeprefix("model."))

    def _needed(self, start: fx.Node, end: fx.Node) -> list[fx.Node]:
        """All that `end` is computed from once `start` is there, itself included, in order."""
        wanted: set[fx.Node] = set()
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node is not start and node not in wanted:
                wanted.add(node)
                waiting += node.all_input_nodes
        return [node for node in self._graph.nodes if node in wanted]

    def _from(self, start: fx.Node) -> set[fx.Node]:
        """All values that hang on `start`, itself included."""
        found = {start}
        for node in self._graph.nodes:
            if any(given in found for given in node.all_input_nodes):
                found.add(node)
        return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards each in the mode in which it was."""
    was = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
