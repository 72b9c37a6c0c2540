"""SyncNet: the two-stream network with its losses and optimiser; an epoch; verification scores."""

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
from syncnet.compute.precision import (
    allow_tf32,
    autocast,
    faster_precision,
    gradient_not_finite,
    has_bfloat16,
)
from syncnet.networks.choices import AUTO, PRECISIONS
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
from syncnet.training.epoch import PARTS, EpochResult, Figures, GradientNotFinite
from syncnet.verification.scores import score_vectors
from syncnet.verification.trials import Trials, read_trials
from syncnet.verification.utterances import utterance_paths
from syncnet.verification.voices import embed_wavs

Heads = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]  # see SyncNet.embeddings
prefer_huge_pages(True)

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-5
STEPS_PER_LOOK = 10  # on a GPU the losses are fetched, and the bar moves, once in so many steps


class SyncNet(nn.Module):
    """The network (`__S__`), the loss scales (`__L__`) and SGD, in the 2020 baseline's arrangement.

    Another optimizer may take SGD's place; `__scheduler__`, where there is one, advances with every step.

    model: module with a SyncNetModel. nOut: embedding size. maxFrames: T, video frames (40 ms each) of
    an evaluation crop. learning_rate: of SGD. temporal_stride: frames between embeddings.
    device: "cpu", "cuda", "cuda:1" ...; None takes CUDA where there is one.
    precision: "fp32" (true float32), "tf32" (GPU matrix units, 10-bit mantissas), "bf16" (autocast;
    weights, front end and losses stay float32); "auto" takes the faster of fp32 and bf16, measured here.
    compiled: run the training step's network through torch.compile (needs a C++ compiler; slow first step).
    crop: what the lip stream sees, "face" or "mouth" (networks/face_crop.py). distance: of the losses, "cosine" or
    "euclidean" (networks/losses.py); verification scores are cosines either way.
    The other flags of the 2020 program are accepted and not used, so that `SyncNet(**vars(args))` works; `lr` is one
    of them, as it was there. Raises UserError for a model that is not there or settings that do not fit, TypeError
    for an argument of another name.
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
        refuse_unknown("SyncNet", flags_of_2020, inspect.signature(SyncNet.__init__).parameters)
        if flags_of_2020.get("lr", learning_rate) != learning_rate:
            warnings.warn(
                f"SyncNet: lr {flags_of_2020['lr']} is not used, as in the 2020 program; learning_rate is what "
                f"counts, and is {learning_rate}",
                stacklevel=2,
            )
        super().__init__()
        if precision not in (choices := (*PRECISIONS, AUTO)):
            raise UserError(f"precision {precision!r}, expected one of {', '.join(choices)}")
        # What a checkpoint remembers of the network beside its weights.
        self.settings = Settings(model, nOut, maxFrames, temporal_stride, crop, distance)
        self.device = choose_device(device)
        self.steps_per_look = STEPS_PER_LOOK if self.device.type == "cuda" else 1
        self.precision_found = ""
        if precision == AUTO:
            precision, reason = distributed.of_first(lambda: faster_precision(self.device))
            self.precision_found = f"precision auto: {precision}; {reason}"
        elif precision == "tf32" and self.device.type != "cuda":
            self.precision_found = f"precision tf32 is for GPUs: {self.device} computes as with fp32"
        elif precision == "bf16" and not has_bfloat16(self.device):
            self.precision_found = (
                f"precision bf16: {self.device} has no bfloat16 instructions; fp32 would be faster"
            )
        self.precision = precision
        self.own_exactness()  # so that direct calls to __S__ use this precision too
        self.maxFrames, self.nOut, self.temporal_stride = maxFrames, nOut, temporal_stride
        self.__S__: Streams = load_model(model)(nOut=nOut, stride=temporal_stride).to(self.device)
        if crop != "face" and not hasattr(self.__S__, "crop"):
            raise UserError(f"model {model!r} sees whole faces only; crop {crop!r} needs one with a `crop`")
        self.__S__.crop = crop
        self.has_content, self.has_identity = check_outputs(self.__S__, self.settings, self.device)
        self.distance = distance
        if distributed.processes() > 1 and self.device.type == "cuda":
            self.__S__ = nn.SyncBatchNorm.convert_sync_batchnorm(self.__S__)
        self.__L__ = LossScale().to(self.device)
        self.__optimizer__: torch.optim.Optimizer = torch.optim.SGD(
            self.parameters(), learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.__scheduler__: torch.optim.lr_scheduler.LRScheduler | None = None
        self.gradients_checked = False
        self.compiled = compiled
        self.compiled_embeddings: Callable[..., Heads] | None = None  # made at the first step

    def __getstate__(self) -> dict[str, object]:
        """What a copy or a pickle has: not what is compiled for the weights of this network."""
        return self.__dict__ | {"compiled_embeddings": None}

    def own_exactness(self) -> None:
        """Undo what another network's precision has set for the whole process; see allow_tf32."""
        allow_tf32(self.precision == "tf32")

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass in this precision."""
        self.own_exactness()
        return self.autocast_alone()

    def autocast_alone(self) -> contextlib.AbstractContextManager:
        return autocast(self.device, self.precision)

    def embeddings(self, video: Tensor, audio: Tensor, content: bool = True, identity: bool = True) -> Heads:
        """Audio content, audio identity, video content and video identity of a batch, (B, nOut, T') each.

        content, identity: False leaves those heads out and gives None for them.
        """
        heads = {} if content and identity else {"content": content, "identity": identity}
        with self.autocast_alone():  # the other part cannot be compiled
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

        The identity task takes each face at one time step, drawn with random.randint for the whole
        batch, and each voice as its mean over time. alpC, alpI, alpD: weights of the content, identity and
        disentanglement loss. A loss of weight 0 is not computed; the disentanglement loss (see
        losses.content_confusion) goes over the kinds of embedding whose own loss is.
        """
        if not (alpC or alpI):
            raise UserError("both the content and the identity loss have weight 0: nothing to compute")
        content_task = (self.__L__.wC, self.__L__.bC, self.distance)
        identity_task = (self.__L__.wI, self.__L__.bI, self.distance)
        faces = (identity_of if alpI else content_of)((video_content, video_identity))
        moment = random.randint(0, faces.shape[2] - 1)

        def a_vector_each(video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
            # Of several processes, each sees the vectors of all.
            return distributed.gather(video[:, :, moment].float()), distributed.gather(audio.float().mean(2))

        figures: dict[str, Tensor] = {}
        terms, confusions = [], []
        if alpC:
            assert video_content is not None and audio_content is not None
            loss, top1 = content_loss(video_content, audio_content, *content_task)
            figures |= {"content_loss": loss, "content_top1": top1}
            terms.append(alpC * loss)
            if alpD:
                face, voice = a_vector_each(video_content, audio_content)
                confusions.append(identity_confusion(face, voice, *identity_task))
        if alpI:
            assert video_identity is not None and audio_identity is not None
            face, voice = a_vector_each(video_identity, audio_identity)
            loss, top1 = identity_loss(face, voice, *identity_task)
            figures |= {"identity_loss": loss, "identity_top1": top1}
            terms.append(alpI * loss)
            if alpD:
                confusions.append(content_confusion(video_identity, audio_identity, *content_task))
        if alpD:
            figures["disentanglement_loss"] = sum(confusions[1:], confusions[0])
            terms.append(alpD * figures["disentanglement_loss"])
        figures["loss"] = total = sum(terms[1:], terms[0])
        nothing = torch.full_like(total, math.nan)
        return total, torch.stack([figures.get(part, nothing) for part in PARTS]).detach()

    def forward(
        self, video: Tensor, audio: Tensor, alpC: float, alpI: float, alpD: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Total loss and figures of a batch on the device; see losses."""
        self.own_exactness()
        if self.compiled and not self.compiled_embeddings:
            self.compiled_embeddings = compile_embeddings(self.embeddings)
        run = self.compiled_embeddings or self.embeddings
        return self.losses(*run(video, audio, content=alpC > 0, identity=alpI > 0), alpC, alpI, alpD)

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
        """Train for one epoch, or with evalmode measure only (running statistics, no update).

        loader: iterable of (video, audio) with batch_size and nFiles; video (B, 3, T, 224, 224) uint8
        or float, audio (B, T*640 + 240). alpC, alpI, alpD: weights of the content,
        identity and disentanglement loss; what has weight 0 is not computed (see losses).
        rows: figures (PARTS) of the epoch's steps that are done already; the loader goes on after them.
        after_step: called with the number of steps done and a function that gives their rows.
        Raises LossNotFinite, naming the batch, and UserError when there is no batch.
        """
        self.train(not evalmode)
        batches = DeviceBatches(loader, self.device)
        rate = self.__optimizer__.param_groups[0]["lr"]
        task = "validate" if evalmode else "train"
        figures = Figures(batches, rows, task, self.steps_per_look, rate, self.precision)
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
                del video, audio  # before the next batch is asked for, which may use their memory
            return figures.result(num_embeddings(frames, self.temporal_stride))

    def update(self, total: Tensor) -> None:
        """One optimizer step on a batch's total loss; with several processes, on the mean over the whole batch."""
        self.own_exactness()
        self.__optimizer__.zero_grad(set_to_none=True)
        (total / distributed.processes()).backward()
        distributed.sum_gradients(self)
        self.check_first_gradients(total)
        self.__optimizer__.step()
        if self.__scheduler__:
            self.__scheduler__.step()
        # Gone before the next forward pass, whose memory they would break up.
        self.__optimizer__.zero_grad(set_to_none=True)
        distributed.average_running_statistics(self)

    def check_first_gradients(self, total: Tensor) -> None:
        """In the first step of this process, raise GradientNotFinite where only the gradients are not finite.

        A loss that is not finite is reported by Figures, with the batch. All processes see the same gradients.
        """
        if self.gradients_checked:
            return
        self.gradients_checked = True
        found = gradient_not_finite(self)
        if found and not distributed.any_of(not math.isfinite(total.item()), self.device):
            raise GradientNotFinite(found, total.item(), self.precision, self.device)

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """The identity embedding of each crop, its mean over time at unit length: (crops, nOut) float32 on the CPU.

        crops: of voices, (crops, T*640 + 240) float32 on the int16 scale, or of face tracks, (crops, 3, T, 224,
        224). batch: crops computed at once; changes memory, and results by rounding only.
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

    def embed(self, files: list[str], num_eval: int = 10, print_interval: int = 100) -> Tensor:
        """One voice identity vector for each file: the mean of the unit vectors of num_eval evenly spread crops.

        files: paths of 16 kHz mono int16 wavs, or of sound files of other kinds than wav, longer than a crop of
        maxFrames. print_interval: files between two updates of the bar. Returns (files, nOut) float32 on the CPU.
        Raises MediaError before anything is computed.
        """
        return embed_wavs(self, files, num_eval, print_interval)

    def evaluateFromListSave(
        self, listfilename: str, print_interval: int = 100, test_path: str = "", num_eval: int = 10
    ) -> tuple[list[float], list[int]]:
        """Scores of a trial list (see read_trials); test_path: the folder that its names start in, or a wav.scp.

        A score is the mean of the num_eval x num_eval cosine similarities between the crops of the two
        files. Returns (scores, labels), labels empty for a list without. Raises MediaError.
        """
        trials = read_trials(listfilename)
        scores = self.score_trials(trials, test_path, num_eval, print_interval)
        return scores.tolist(), [] if trials.labels is None else trials.labels.tolist()

    def score_trials(
        self, trials: Trials, test_path: str = "", num_eval: int = 10, print_interval: int = 100
    ) -> np.ndarray:
        """Scores of trials that are already read: (N,) float32. See evaluateFromListSave."""
        files = utterance_paths(trials.files, test_path)
        return score_vectors(self.embed(files, num_eval, print_interval), trials)

    def updateLearningRate(self, alpha: float) -> list[float]:
        """Multiply the learning rate by alpha. Returns the new rate of each parameter group."""
        for group in self.__optimizer__.param_groups:
            group["lr"] *= alpha
        return [group["lr"] for group in self.__optimizer__.param_groups]

    def saveParameters(self, path: str) -> None:
        """Write the state dict, 126 names as in the 2020 baseline; complete or not at all."""
        save_checkpoint(self, path, asdict(self.settings))

    def loadParameters(self, path: str, strict: bool = False) -> Misfits:
        """Copy a checkpoint's tensors by name, print a line for each that does not fit, and return them.

        strict: raise CheckpointError instead when a weight that is needed does not fit. See load_weights.
        """
        return load_weights(self, path, self.settings.crop, strict)
