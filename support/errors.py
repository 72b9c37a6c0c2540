"""The errors that a user can do something about."""


class UserError(ValueError):
    """Bad input: the message names the file, line or flag, what was found, what was expected, and what to do.

    Commands print it as one line, without a traceback. A ValueError that is not a UserError is a fault of the
    program and keeps its traceback.
    """
