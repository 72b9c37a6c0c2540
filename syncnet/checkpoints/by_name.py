"""Load networks by module name: files in models/ that define a SyncNetModel, or any module the user names."""

import ast
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import replace
from types import ModuleType

from syncnet import PROJECT
from syncnet.networks.interface import Network, Streams
from syncnet.networks.output_check import check_outputs
from syncnet.networks.settings import Settings
from syncnet.support.errors import UserError

_checked: set[Settings] = set()  # networks already checked in at_every_frame
FOLDER = os.path.join(PROJECT, "models")


def load_model(name: str) -> type[Streams]:
    """Return the SyncNetModel class of a module such as models.SyncNetModelFBank. Raises UserError.

    Imports the module: if the name comes from a checkpoint, check it with is_network_of_models first.
    """
    reason = "not a module name"
    if all(map(str.isidentifier, name.split("."))):
        try:
            module = import_network(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # the model exists, but a module that it imports does not
            reason = str(error)
        else:
            if hasattr(module, "SyncNetModel"):
                return module.SyncNetModel
            reason = "the module does not define one"
    modules = sorted(f"models.{file[:-3]}" for file in os.listdir(FOLDER) if file.endswith(".py"))
    known = ", ".join(module for module in modules if is_network_of_models(module))
    raise UserError(f"model {name!r} has no SyncNetModel ({reason}); available: {known}")


def import_network(name: str) -> ModuleType:
    """Import a module: a file in our models/, loaded by path, or any other module that Python finds.

    A caller's own package `models` is neither used nor changed.
    """
    path = os.path.join(FOLDER, name.removeprefix("models.") + ".py")
    if not name.startswith("models.") or not os.path.exists(path):
        return importlib.import_module(name)
    loaded = sys.modules.get(name)
    if loaded is not None and os.path.abspath(loaded.__file__ or "") == path:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules.setdefault(name, module) if loaded is None else module


def at_every_frame(network: Network) -> Streams:
    """Return the streams of a network with temporal stride 1, whatever its stride in training.

    The weights, which do not depend on the stride, are shared. The streams are in evaluation mode, on the network's
    device.
    """
    network.eval()
    if network.settings.temporal_stride == 1:
        return network.__S__
    streams = load_model(network.settings.model)(nOut=network.settings.nOut, stride=1).to(network.device)
    streams.load_state_dict(network.__S__.state_dict(), assign=True)
    streams.crop = network.settings.crop
    if (settings := replace(network.settings, temporal_stride=1)) not in _checked:
        check_outputs(streams, settings, network.device)
        _checked.add(settings)
    return streams.eval()


def is_network_of_models(name: str) -> bool:
    """Return whether a name is a file in models/ that defines a SyncNetModel. The file is parsed, not imported."""
    if not re.fullmatch(r"models(\.[A-Za-z_][A-Za-z0-9_]*)+", name):
        return False
    try:
        with open(os.path.join(FOLDER, *name.split(".")[1:]) + ".py", encoding="utf-8") as file:
            statements = ast.parse(file.read()).body
    except (OSError, ValueError, SyntaxError):
        return False
    return "SyncNetModel" in {name for statement in statements for name in defined_names(statement)}


def defined_names(statement: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines."""
    if isinstance(statement, ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return []
