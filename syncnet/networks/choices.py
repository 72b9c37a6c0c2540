"""What a network can be asked for, by name. No torch: flags can name it at once."""

CROPS = ("face", "mouth")  # what the lip stream sees; see faceCrop.py
DISTANCES = ("cosine", "euclidean")  # of the embeddings in the losses; see losses.py
PRECISIONS = ("fp32", "tf32", "bf16")
AUTO = "auto"  # a flag's precision: the faster of fp32 and bf16, measured (precision.py)
