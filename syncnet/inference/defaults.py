"""What the functions and the commands of inference do unless told otherwise. No torch: flags read it at once."""

NUM_EVAL = 10  # evenly spread crops of a file, as in evaluation
VOICES_AT_ONCE, FACES_AT_ONCE = 40, 10  # crops; those of faces take much memory
MAX_OFFSET = 15  # frames, either way
WAYS = (2, 10)
WINDOWS_AT_ONCE = 16  # as fast as more at once, in less memory
PRIOR = 0.05  # of one speaker, at which a calibration is fitted and a probability given
