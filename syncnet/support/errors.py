"""Errors that a user can fix."""

import errno

# Parts of out-of-memory messages from PyTorch (CPU, CUDA, cuBLAS, cuDNN), C++, OpenCV and Python.
OUT_OF_MEMORY = (
    "can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED",
    "std::bad_alloc", "Insufficient memory", "Failed to allocate", "can't start new thread",
)  # fmt: skip


class UserError(ValueError):
    """Bad input. The message names the file, line or flag, and says what was found, what was expected, what to do.

    Commands print it as one line without a traceback. Any other ValueError is a bug and keeps its traceback.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the CPU or a GPU is out of memory; libraries raise many classes for this."""
    if isinstance(error, UserError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    kinds = (MemoryError.__name__, "OutOfMemoryError")
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(kinds) or any(words in str(error) for words in OUT_OF_MEMORY)
