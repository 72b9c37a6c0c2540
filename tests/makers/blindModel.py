"""tinyModel, in a run whose second process cannot read what is in the folder that UNREADABLE names."""

import builtins
import errno
import os

from tinyModel import SyncNetModel

__all__ = ["SyncNetModel"]

if os.environ.get("RANK") == "1" and "UNREADABLE" in os.environ:

    def call_without(real):
        def call(path, *args, **kwargs):
            if os.environ["UNREADABLE"] in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return call

    builtins.open, os.listdir, os.stat = map(call_without, (open, os.listdir, os.stat))
