"""SyncNet: the two-stream network with its losses, its optimizer and the training step.

A step: embeddings of a batch's faces and voices -> content, identity and (if its weight is not 0) disentanglement
loss -> backward -> optimizer.
`run_epoch` repeats it over an epoch; trainSyncNet.py loops over epochs. Structure and names are those of the 2020
baseline.
"""

import contextlib
import inspect
import math
import random
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from syncnet.checkpoints.by_name import load_model
from syncnet.checkpoints.checkpoints import save_checkpoint
from syncnet.checkpoints.weights import Misfits, load_weights
from syncnet.compute import distributed
from syncnet.compute.device import BatchLoader, DeviceBatches, choose_device, compile_embeddings
from syncnet.compute.memory import keep_memory as keep_memory  # for programs that import SyncNet
from syncnet.compute.memory import prefer_huge_pages
from syncnet.compute.precision import allow_tf32, autocast, choose_precision
from syncnet.networks.interface import Streams
from syncnet.networks.losses import (
    LossScale,
    content_confusion,
    content_loss,
    identity_confusion,
    identity_loss,
    unit,
)
from syncnet.networks.output_check import check_outputs
from syncnet.networks.settings import Settings
from syncnet.networks.two_streams import content_of, identity_of, num_embeddings
from syncnet.support.errors import UserError
from syncnet.support.names import refuse_unknown
from syncnet.training.epoch import PARTS, EpochResult, Figures, refuse_gradients_not_finite
from syncnet.verification.scores import score_vectors
from syncnet.verification.trials import Trials, read_trials
from syncnet.verification.utterances import utterance_paths
from syncnet.verification.voices import embed_wavs

Heads = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]  # see SyncNet.embeddings
prefer_huge_pages(True)

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-5
STEPS_PER_FETCH = 10  # on a GPU, steps between updates of losses and the progress bar


class SyncNet(nn.Module):
    """The network (`__S__`), the scales of its losses (`__L__`), and SGD (`__optimizer__`).

    The optimizer can be replaced; `__scheduler__`, if set, advances with every step.

    model: module with a SyncNetModel. nOut: embedding size. maxFrames: T, video frames (40 ms each) of
    an evaluation crop. learning_rate: of SGD. temporal_stride: frames between embeddings.
    device: "cpu", "cuda", "cuda:1" ...; None: CUDA if available.
    precision: "fp32" (true float32), "tf32" (GPU matrix units, 10-bit mantissas), "bf16" (autocast;
    weights, front end and losses stay float32); "auto" measures which of fp32 and bf16 is faster here.
    compiled: run the training step's network through torch.compile (needs a C++ compiler; slow first step).
    crop: what the lip stream sees, "face" or "mouth" (networks/face_crop.py). distance: of the losses, "cosine" or
    "euclidean" (networks/losses.py); verification scores are cosines either way.
    The other flags of the 2020 program are accepted and ignored, so that `SyncNet(**vars(args))` works. As in 2020,
    `lr` is ignored too; set `learning_rate`. Raises UserError for a missing model or settings that do not fit,
    TypeError for an unknown argument.
    """

    def __init__(
        self,
        model: str = "models.SyncNetModelFBank",
        nOut: int = 1024,
        maxFrames: int = 30,
        learning_rate: float = 0.0001,
        temporal_stride: int = 1,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        compiled: bool = False,
        crop: str = "face",
        distance: str = "cosine",
        **flags_of_2020: object,
    ):
        super().__init__()
        refuse_unknown("SyncNet", flags_of_2020, inspect.signature(SyncNet.__init__).parameters)
        if flags_of_2020.get("lr", learning_rate) != learning_rate:
            warnings.warn(
                f"SyncNet: lr {flags_of_2020['lr']} is not used, as in the 2020 program; learning_rate is what "
                f"counts, and is {learning_rate}",
                stacklevel=2,
            )
        # Checkpoints store these settings with the weights.
        self.settings = Settings(model, nOut, maxFrames, temporal_stride, crop, distance)
        self.maxFrames, self.nOut, self.temporal_stride, self.distance = (
            maxFrames,
            nOut,
            temporal_stride,
            distance,
        )
        self.device = choose_device(device)
        self.precision, self.precision_note = choose_precision(precision, self.device)
        self.set_tf32()  # so that direct calls to __S__ use this precision too
        self.steps_per_fetch = STEPS_PER_FETCH if self.device.type == "cuda" else 1

        self.__S__: Streams = load_model(model)(nOut=nOut, stride=temporal_stride).to(self.device)
        if crop != "face" and not hasattr(self.__S__, "crop"):
            raise UserError(f"model {model!r} sees whole faces only; crop {crop!r} needs one with a `crop`")
        self.__S__.crop = crop
        self.has_content, self.has_identity = check_outputs(self.__S__, self.settings, self.device)
        if distributed.processes() > 1 and self.device.type == "cuda":
            self.__S__ = nn.SyncBatchNorm.convert_sync_batchnorm(self.__S__)
        self.__L__ = LossScale().to(self.device)
        self.__optimizer__: torch.optim.Optimizer = torch.optim.SGD(
            self.parameters(), learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.__scheduler__: torch.optim.lr_scheduler.LRScheduler | None = None
        self.gradients_checked = False
        self.compiled = compiled
        self.compiled_embeddings: Callable[..., Heads] | None = None  # created at the first step

    # ---------------------------------------------------------------- training

    def train_network(
        self, loader: BatchLoader, evalmode: bool = False, alpC: float = 1.0, alpI: float = 1.0
    ) -> tuple[float, float]:
        """One epoch over a loader; see run_epoch. Returns (mean loss, identity top-1 in percent)."""
        result = self.run_epoch(loader, evalmode, alpC, alpI)
        return result.loss, result.identity_top1

    def run_epoch(
        self,
        loader: BatchLoader,
        evalmode: bool = False,
        alpC: float = 1.0,
        alpI: float = 1.0,
        alpD: float = 0.0,
        rows: Iterable[list[float]] = (),
        after_step: Callable[[int, Callable[[], list]], None] | None = None,
    ) -> EpochResult:
        """Train for one epoch, or with evalmode only evaluate (with running statistics, without updates).

        loader: iterable of (video, audio) with batch_size and nFiles; video (B, 3, T, 224, 224) uint8
        or float, audio (B, T*640 + 240). alpC, alpI, alpD: weights of the content,
        identity and disentanglement loss; a loss of weight 0 is not computed (see losses).
        rows: figures (PARTS) of the epoch's finished steps; the loader continues after them.
        after_step: called with the number of finished steps and a function that returns their rows.
        Raises LossNotFinite, naming the batch, and UserError if there is no batch.
        """
        self.train(not evalmode)
        batches = DeviceBatches(loader, self.device)
        rate = self.__optimizer__.param_groups[0]["lr"]
        task = "validate" if evalmode else "train"
        figures = Figures(batches, rows, task, self.steps_per_fetch, rate, self.precision)
        frames = self.maxFrames
        with figures.bar, torch.set_grad_enabled(not evalmode):
            for video, audio in batches:
                frames = video.shape[2]
                total, row = self(video, audio, alpC, alpI, alpD)
                if not evalmode:
                    self.update(total)
                figures.add(row)
                if after_step:
                    after_step(figures.steps, figures.fetch)
                del video, audio  # free them first: the next batch may reuse their memory
            return figures.result(num_embeddings(frames, self.temporal_stride))

    def forward(
        self, video: Tensor, audio: Tensor, alpC: float, alpI: float, alpD: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Total loss and figures of a batch on the device; see losses."""
        self.set_tf32()
        if self.compiled and not self.compiled_embeddings:
            self.compiled_embeddings = compile_embeddings(self.embeddings)
        embed = self.compiled_embeddings or self.embeddings
        return self.losses(*embed(video, audio, content=alpC > 0, identity=alpI > 0), alpC, alpI, alpD)

    def embeddings(self, video: Tensor, audio: Tensor, content: bool = True, identity: bool = True) -> Heads:
        """Audio content, audio identity, video content and video identity of a batch, (B, nOut, T') each.

        content, identity: False skips those heads and returns None for them.
        """
        heads = {} if content and identity else {"content": content, "identity": identity}
        with autocast(self.device, self.precision):
            return (*self.__S__.forward_aud(audio, **heads), *self.__S__.forward_vid(video, **heads))

    def losses(
        self,
        audio_content: Tensor | None,
        audio_identity: Tensor | None,
        video_content: Tensor | None,
        video_identity: Tensor | None,
        alpC: float,
        alpI: float,
        alpD: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The total loss of a batch's embeddings and, without a graph, its figures in the order of PARTS.

        Content: which moment of a clip's voice belongs to a moment of its face. Identity: which voice of the batch
        belongs to a face. Faces are taken at one time step, drawn with random.randint for the whole batch; voices are
        averaged over time. With several processes, the batch is that of all of them.
        alpC, alpI, alpD: weights of the content, identity and disentanglement loss. A loss of weight 0 is not
        computed; the disentanglement loss (see content_confusion) uses only the embeddings whose own loss has nonzero
        weight.
        """
        if not (alpC or alpI):
            raise UserError("both the content and the identity loss have weight 0: nothing to compute")
        content_task = (self.__L__.wC, self.__L__.bC, self.distance)
        identity_task = (self.__L__.wI, self.__L__.bI, self.distance)
        faces = (identity_of if alpI else content_of)((video_content, video_identity))
        moment = random.randint(0, faces.shape[2] - 1)

        def one_vector_per_clip(video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
            return distributed.gather(video[:, :, moment].float()), distributed.gather(audio.float().mean(2))

        figures: dict[str, Tensor] = {}
        terms, confusions = [], []
        if alpC:
            assert video_content is not None and audio_content is not None
            loss, top1 = content_loss(video_content, audio_content, *content_task)
            figures |= {"content_loss": loss, "content_top1": top1}
            terms.append(alpC * loss)
            if alpD:
                face, voice = one_vector_per_clip(video_content, audio_content)
                confusions.append(identity_confusion(face, voice, *identity_task))
        if alpI:
            assert video_identity is not None and audio_identity is not None
            face, voice = one_vector_per_clip(video_identity, audio_identity)
            loss, top1 = identity_loss(face, voice, *identity_task)
            figures |= {"identity_loss": loss, "identity_top1": top1}
            terms.append(alpI * loss)
            if alpD:
                confusions.append(content_confusion(video_identity, audio_identity, *content_task))
        if alpD:
            figures["disentanglement_loss"] = sum(confusions[1:], confusions[0])
            terms.append(alpD * figures["disentanglement_loss"])
        figures["loss"] = total = sum(terms[1:], terms[0])
        missing = torch.full_like(total, math.nan)
        return total, torch.stack([figures.get(part, missing) for part in PARTS]).detach()

    def update(self, total: Tensor) -> None:
        """One optimizer step on a batch's total loss; with several processes, on the mean over the whole batch."""
        self.set_tf32()
        self.__optimizer__.zero_grad(set_to_none=True)
        (total / distributed.processes()).backward()
        distributed.sum_gradients(self)
        if not self.gradients_checked:
            refuse_gradients_not_finite(self, total, self.precision, self.device)
            self.gradients_checked = True
        self.__optimizer__.step()
        if self.__scheduler__:
            self.__scheduler__.step()
        # Freed before the next forward pass, whose memory they would fragment.
        self.__optimizer__.zero_grad(set_to_none=True)
        distributed.average_running_statistics(self)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; with several parameter groups, the highest."""
        return max(float(group["lr"]) for group in self.__optimizer__.param_groups)

    def updateLearningRate(self, alpha: float) -> list[float]:
        """Multiply the learning rate by alpha. Returns the new rate of each parameter group."""
        for group in self.__optimizer__.param_groups:
            group["lr"] *= alpha
        return [group["lr"] for group in self.__optimizer__.param_groups]

    def set_tf32(self) -> None:
        """Set TF32 for the whole process to this network's precision; see allow_tf32."""
        allow_tf32(self.precision == "tf32")

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass in this network's precision."""
        self.set_tf32()
        return autocast(self.device, self.precision)

    # ---------------------------------------------------------------- verification

    def evaluateFromListSave(
        self, listfilename: str, print_interval: int = 100, test_path: str = "", num_eval: int = 10
    ) -> tuple[list[float], list[int]]:
        """Scores of a trial list (see read_trials); test_path: the folder of its files, or a wav.scp.

        A score is the mean of the num_eval x num_eval cosine similarities between the crops of the two
        files. Returns (scores, labels); labels is empty for an unlabeled list. Raises MediaError.
        """
        trials = read_trials(listfilename)
        scores = self.score_trials(trials, test_path, num_eval, print_interval)
        return scores.tolist(), [] if trials.labels is None else trials.labels.tolist()

    def score_trials(
        self, trials: Trials, test_path: str = "", num_eval: int = 10, print_interval: int = 100
    ) -> np.ndarray:
        """Scores of trials: (N,) float32. See evaluateFromListSave."""
        files = utterance_paths(trials.files, test_path)
        return score_vectors(self.embed(files, num_eval, print_interval), trials)

    def embed(self, files: list[str], num_eval: int = 10, print_interval: int = 100) -> Tensor:
        """One voice identity vector per file: the mean of the unit vectors of num_eval evenly spread crops.

        files: 16 kHz mono int16 wavs or other sound files, longer than a crop of maxFrames. print_interval: files
        between two updates of the bar. Returns (files, nOut) float32 on the CPU.
        Raises MediaError before anything is computed.
        """
        return embed_wavs(self, files, num_eval, print_interval)

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """The identity embedding of each crop, its mean over time at unit length: (crops, nOut) float32 on the CPU.

        crops: of voices, (crops, T*640 + 240) float32 on the int16 scale, or of face tracks, (crops, 3, T, 224,
        224). batch: crops computed at once; affects memory, and results by rounding only.
        """
        self.eval()
        forward = self.__S__.forward_vid if crops.dim() == 5 else self.__S__.forward_aud
        vectors = []
        for part in crops.split(batch):
            with torch.inference_mode():
                with self.autocast():
                    identity = identity_of(forward(part.to(self.device)))
                vectors.append(unit(identity.float().mean(2)).cpu())
        return torch.cat(vectors)

    # ---------------------------------------------------------------- checkpoints

    def saveParameters(self, path: str) -> None:
        """Write the state dict, with the 2020 baseline's 126 names for its networks; complete or not at all."""
        save_checkpoint(self, path, asdict(self.settings))

    def loadParameters(self, path: str, strict: bool = False) -> Misfits:
        """Copy a checkpoint's tensors by name, print a line for each that does not fit, and return those.

        strict: raise CheckpointError instead if a weight that is needed does not fit. See load_weights.
        """
        return load_weights(self, path, self.settings.crop, strict)

    def __getstate__(self) -> dict[str, object]:
        """The state for copies and pickles: everything except the compiled function."""
        return self.__dict__ | {"compiled_embeddings": None}
