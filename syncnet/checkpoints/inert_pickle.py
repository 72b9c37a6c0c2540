"""Read a pickle without running any code in it: all objects except tensors become inert stand-ins.

Training programs save NumPy numbers, dates, paths and objects of their own classes in addition to the weights. The
weights can be used without these, so none of them is imported, called or restored.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import IO, Any

import torch

# The only names that are looked up; they build tensors from stored bytes.
REBUILD = {
    ("collections", "OrderedDict"): OrderedDict,
    **{
        ("torch._utils", name): getattr(torch._utils, name)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
}


class StandIn(dict):
    """Replaces an object of any other class: accepts every operation of pickle and does nothing.

    It is a dict so that a state dict inside a dict subclass (such as a config object) is still found.
    """

    def __new__(cls, *_args: object, **_kwargs: object) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        super().__init__()

    def __call__(self, *_args: object, **_kwargs: object) -> "StandIn":
        return StandIn()

    def append(self, _item: object) -> None:
        """Like append of a list or a deque, but drops the item."""

    extend = add = append

    # Objects may be dict keys.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__}>"


class _Unpickler(pickle._Unpickler):
    """The Python implementation: BUILD can be replaced, and an invalid memo index does not allocate memory."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Drop the state of objects, except the `_metadata` that torch adds to every state dict."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        built = self.stack[-1]  # type: ignore[attr-defined]
        if type(built) is OrderedDict and isinstance(state, dict) and "_metadata" in state:
            vars(built)["_metadata"] = state["_metadata"]

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def inert_pickle() -> tuple[Any, list[str]]:
    """Return a pickle module for torch.load, and the list to which it appends the names of replaced classes."""
    replaced: list[str] = []

    class Unpickler(_Unpickler):
        def find_class(self, module: str, name: str) -> Callable[..., Any]:
            if (module, name) in REBUILD:
                return REBUILD[module, name]
            replaced.append(f"{module}.{name}")
            return type("StandIn", (StandIn,), {"__qualname__": replaced[-1]})

    def load(file: IO[bytes], **settings: Any) -> object:
        return Unpickler(file, **settings).load()

    return SimpleNamespace(__name__="inert_pickle", Unpickler=Unpickler, load=load), replaced


def load_inert(data: bytes) -> tuple[object, list[str]]:
    """Load a file written by torch.save on the CPU; returns its contents and the names of replaced classes.

    data: the whole file. Damaged files raise all kinds of errors.
    """
    module, replaced = inert_pickle()
    loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=module)
    return loaded, replaced
