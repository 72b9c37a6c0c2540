"""Read files written by torch.save without running any code in them."""

import errno
import io
import os
import pickle
import re
import warnings
import zipfile

import torch

from syncnet.checkpoints.inert_pickle import load_inert
from syncnet.support.errors import UserError


class CheckpointError(UserError):
    """The checkpoint cannot be used; the message names the file and a remedy."""


class UnreadableCheckpoint(CheckpointError):
    """The file is damaged or holds objects that must not be loaded."""


def load_tensors(path: str) -> object:
    """Load a file saved by torch on the CPU: tensors and plain values.

    Raises CheckpointError if there is no file, UnreadableCheckpoint if it is damaged, of another type, or holds other
    objects (which are neither imported nor run), and OSError, with the file name, if an intact file cannot be read:
    no permission, a temporary disk error, not enough memory.
    """
    loaded, objects = load_with_stand_ins(path)
    if objects:
        raise UnreadableCheckpoint(f"{path}: not loaded, {holds_objects(objects[0])}")
    return loaded


def load_with_stand_ins(path: str) -> tuple[object, list[str]]:
    """Like load_tensors, but replaces other objects by inert stand-ins (see inert_pickle.py).

    Returns the contents and the class names of replaced objects.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise CheckpointError(
            f"{path}: is a folder; a checkpoint is a file, such as model000000001.model"
        ) from None
    except MemoryError:
        raise out_of_memory(path) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    is_zip = False
    try:
        is_zip = zipfile.is_zipfile(io.BytesIO(data))
        if is_zip:  # torch writes checksums but does not verify them
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if damaged := archive.testzip():
                    raise UnreadableCheckpoint(
                        f"{path}: not loaded, the checksum of its part {damaged} is wrong: the file is damaged"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about old formats, which can still be read
            try:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), []
            except pickle.UnpicklingError as refused:
                try:
                    return load_inert(data)
                except MemoryError:
                    raise
                except Exception:
                    raise refused from None
    except UnreadableCheckpoint:
        raise
    except Exception as error:  # damaged files raise all kinds of errors
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, path) from error
        if is_zip and (isinstance(error, MemoryError) or "allocate memory" in str(error)):
            raise out_of_memory(path) from None
        raise UnreadableCheckpoint(f"{path}: not loaded, {what_is_wrong(data, error)}") from None


def out_of_memory(path: str) -> OSError:
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path)


def what_is_wrong(data: bytes, error: Exception) -> str:
    """Return why a file is not a checkpoint. PyTorch's message would advise running the code in the file."""
    if not data:
        return "the file is empty"
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return holds_objects(found[1])
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return "the file is damaged: its end is missing or wrong"
        if any(name.endswith("/constants.pkl") for name in names):
            return "it is a TorchScript program, not weights; save the state_dict() of the original module"
        if not any(name.endswith("/data.pkl") for name in names):
            return "it is a zip archive of something else, not a checkpoint"
        return "the file is damaged"
    if data.startswith(b"\x80"):
        return "it is a pickle that is damaged or was not written by torch.save"
    is_text = not any(byte < 9 or 13 < byte < 27 for byte in data[:4096])
    return f"it is {'a text file' if is_text else 'a file of another type'}, not a checkpoint"


def holds_objects(name: str) -> str:
    """Return why a file with an object of this class is refused."""
    return (
        f"it holds objects other than tensors ({name}), which could run code when loaded. In the program "
        "that wrote it, save only the weights: torch.save(network.state_dict(), 'weights.model')"
    )
