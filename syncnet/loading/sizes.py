"""Find a crop length and batch size for lists that are too short for the requested ones."""

from collections.abc import Sequence

from syncnet.media.clips import LEAST_BATCH, LEAST_FRAMES, LIP_FRAMES, Clip, MediaError


class TooFewClips(MediaError):
    """A list has less than one batch of clips to train on. found: the message without the remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found} {remedy}")
        self.found = found


def sizes_that_fit(
    lists: Sequence[Sequence[Clip]], maxFrames: int, batch: int, multiple: int = 1
) -> tuple[int, int] | None:
    """Return (maxFrames, nBatchSize), at most the given ones, for which every list has a batch; None if impossible.

    The crop is shortened if a list has less than a batch of clips of that length, so that most clips are used.
    multiple: the batch size must be divisible by it.
    """
    lengths = [sorted((clip.longest_crop for clip in clips), reverse=True) for clips in lists]
    if not all(lengths):
        return None
    frames = min(maxFrames, *(longest[min(batch, len(longest)) - 1] for longest in lengths))
    clips = min(batch, *(sum(length >= frames for length in longest) for longest in lengths))
    clips -= clips % multiple
    return (frames, clips) if frames >= LIP_FRAMES and clips >= LEAST_BATCH else None


def size_flags(sizes: tuple[int, int], usual: tuple[int, int]) -> str:
    """Return the flags for (maxFrames, nBatchSize) on a command line, if they differ from the usual sizes."""
    named = zip(("--maxFrames", "--nBatchSize"), sizes, usual, strict=True)
    return " ".join(f"{flag} {size}" for flag, size, other in named if size != other)


def longer_lists(multiple: int = 1) -> str:
    """Return what to do about lists that are too short for any sizes."""
    return (
        f"Use a longer list: training needs at least {max(LEAST_BATCH, multiple)} clips of {LEAST_FRAMES} frames "
        "in each list."
    )


def sizes_remedy(lists: Sequence[Sequence[Clip]], maxFrames: int, batch: int, multiple: int = 1) -> str:
    """Return what to do about a list with less than one batch of clips to train on. See sizes_that_fit."""
    sizes = sizes_that_fit(lists, maxFrames, batch, multiple)
    if sizes is None:
        return longer_lists(multiple)
    flags = size_flags(sizes, (maxFrames, batch))
    return f"Use a smaller --nBatchSize or --maxFrames (such as {flags}), or a longer list."
