"""Choices of flags. Imports nothing slow, so that --help is fast."""

CROPS = ("face", "mouth")  # what the lip stream sees; see face_crop.py
DISTANCES = ("cosine", "euclidean")  # of embeddings in the losses; see losses.py
PRECISIONS = ("fp32", "tf32", "bf16")
AUTO = "auto"  # the faster of fp32 and bf16, measured (compute/precision.py)
