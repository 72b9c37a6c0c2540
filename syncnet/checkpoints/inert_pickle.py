"""Read a pickle without running anything in it: every object that is not a tensor becomes an inert stand-in.

Training programs save NumPy numbers, dates, paths and objects of their own classes beside the weights. None of that
is needed to use the weights, so none of it is imported, called or restored.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import IO, Any

import torch

# The only names of a pickle that are looked up. They build tensors from stored bytes.
REBUILD = {
    ("collections", "OrderedDict"): OrderedDict,
    **{
        ("torch._utils", name): getattr(torch._utils, name)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
}


class StandIn(dict):
    """Takes the place of an object of any other class: accepts what pickle does with it, and does nothing.

    It is a dict so that a state dict in a dict subclass (a config object, say) is still found.
    """

    def __new__(cls, *_args: object, **_kwargs: object) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        super().__init__()

    def __call__(self, *_args: object, **_kwargs: object) -> "StandIn":
        return StandIn()

    def append(self, _item: object) -> None:
        """As of a list or a deque: the item is dropped."""

    extend = add = append

    # Objects may be keys.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__}>"


class _Unpickler(
    pickle._Unpickler
):  # in Python, so that BUILD can be replaced and a false memo index costs nothing
    dispatch = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Drop the state of objects; of a state dict keep `_metadata`, which torch adds to every one."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        built = self.stack[-1]  # type: ignore[attr-defined]
        if type(built) is OrderedDict and isinstance(state, dict) and "_metadata" in state:
            vars(built)["_metadata"] = state["_metadata"]

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def inert_pickle() -> tuple[Any, list[str]]:
    """A pickle module for torch.load, and the list to which it adds the names that it has replaced."""
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
    """What a file written by torch.save holds, on the CPU, and the names of what stand-ins replace.

    data: the whole file. Raises whatever a damaged file leads to.
    """
    module, replaced = inert_pickle()
    loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=module)
    return loaded, replaced
