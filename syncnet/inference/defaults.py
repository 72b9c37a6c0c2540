"""Defaults of the inference functions and commands. Imports nothing, so that --help is fast."""

NUM_EVAL = 10  # evenly spread crops per file, as in evaluation
VOICES_AT_ONCE, FACES_AT_ONCE = 40, 10  # crops; face crops need much memory
MAX_OFFSET = 15  # frames, in both directions
WAYS = (2, 10)
WINDOWS_AT_ONCE = 16  # larger batches are no faster and need more memory
