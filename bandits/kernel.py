"""The dialect that policies are written in: plain functions that Numba compiles, or that Python runs as they stand.

Rules of the dialect, each from a measurement or a fault seen elsewhere:

1. `math.*` on scalars, never `numpy.*`: their logarithms differ in the last bit; one flipped tie is another history.
2. No division by zero and no `log(0)`: guard the cold arm explicitly.
3. Explicit loops, no `@` and no `sum`: the order of additions is part of the result.
4. Randomness comes from the uniforms in the state (`offramp.bandits.state.uniform`), drawn by NumPy's `Generator`.
5. All a policy knows is one flat float64 array.  No strings, dicts or objects.
6. Nothing is compiled with `fastmath`, and nothing is raised: what is wrong is a flag in the result.
7. No array is made, and none is returned: compiled code keeps no reference counts (measured: 77 ns a round
   against 214).  Functions are therefore inlined, and what they write goes into a row or into the state.

With ``NUMBA_DISABLE_JIT=1``, or where Numba is not installed, the same text runs as Python: slower, same decisions.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> Path | None:
    """Where compiled code is kept: one folder for each text of all kernels; None where nothing can be written."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(chosen) if chosen else Path.home() / ".cache") / "offramp" / digest.hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no place to write, or no home at all
        return None
    return folder if os.access(folder, os.W_OK) else None


def whole(x: float) -> int:
    """A number in 0..2^31 - 1 as an index; compiled code then spares the test for negative indices."""
    return int(x)


def fetch(row: Any) -> None:
    """Ask the memory for a row that is read some rounds later, its first and its last number; nothing else happens."""


try:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core.compiler import Compiler
    from numba.extending import intrinsic, overload, register_jitable
except ImportError:  # the core runs without Numba
    HAVE_NUMBA = False

    def compile_here(function: F) -> F:
        """Compile a function for this process alone (here: leave it as it is)."""
        return function

    def kernel(function: F) -> F:
        """Mark a function of the dialect."""
        return function

    def compiled(function: F) -> F:
        """Compile an entry point (here: leave it as it is)."""
        return function

else:
    HAVE_NUMBA = True

    @intrinsic  # type: ignore[untyped-decorator]
    def _compiled_whole(typing: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            i32, i64 = ir.IntType(32), ir.IntType(64)
            (given,) = arguments
            low = builder.fptosi(given, i32) if isinstance(x, types.Float) else builder.trunc(given, i32)
            return builder.zext(low, i64)

        return types.int64(x), code

    @overload(whole, inline="always")
    def _whole(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  (Numba compares signatures)
        return lambda x: _compiled_whole(x)

    @intrinsic  # type: ignore[untyped-decorator]
    def _compiled_fetch(typing: Any, row: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            given = context.make_array(row)(context, builder, arguments[0])
            i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), (pointer, i32, i32, i32))
            ask = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
            length = builder.extract_value(given.shape, 0)
            last = builder.gep(given.data, [builder.sub(length, length.type(1))])
            for place in (given.data, last):
                builder.call(ask, (builder.bitcast(place, pointer), i32(0), i32(3), i32(1)))
            return context.get_dummy_value()

        return types.none(row), code

    @overload(fetch, inline="always")
    def _fetch(row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return lambda row: _compiled_fetch(row)

    class _Apart(Compiler):  # type: ignore[misc]
        """Numba's own compiler, told that no two arguments share memory."""

        def define_pipelines(self) -> Any:
            self.state.flags.noalias = True
            return super().define_pipelines()

    OPTIONS: dict[str, Any] = {"pipeline_class": _Apart, "error_model": "numpy", "nogil": True, "_nrt": False}
    _FOLDER = _cache_folder()

    def kernel(function: F) -> F:
        """Mark a function of the dialect: plain when Python calls it, compiled when a compiled function does."""
        return cast(F, register_jitable(error_model="numpy", forceinline=True)(function))

    def compiled(function: F) -> F:
        """Compile an entry point that closes over nothing, so that the next process finds it on disk."""
        # Numba asks for the folder while it decorates; elsewhere in the process its setting stays what it was.
        before = numba.config.CACHE_DIR
        if _FOLDER is not None:
            numba.config.CACHE_DIR = str(_FOLDER)
        try:
            return cast(F, numba.njit(cache=_FOLDER is not None, **OPTIONS)(function))
        finally:
            numba.config.CACHE_DIR = before

    def compile_here(function: F) -> F:
        """Compile a function for this process alone: closures, which no other process could find on disk."""
        return cast(F, numba.njit(**OPTIONS)(function))
