"""Choices for flags, in a module without slow imports so that --help is fast."""

CROPS = ("face", "mouth")  # input of the lip stream; see face_crop.py
DISTANCES = ("cosine", "euclidean")  # between embeddings in the losses; see losses.py
PRECISIONS = ("fp32", "tf32", "bf16")
AUTO = "auto"  # whichever of fp32 and bf16 is measured to be faster; see compute/precision.py
