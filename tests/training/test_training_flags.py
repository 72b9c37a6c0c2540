"""Each flag of trainSyncNet.py does what its help says: a run with it differs from the default run as promised."""

import csv
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import frame_number, make_clip, make_list, make_wav
from scipy.io import wavfile
from undrawn import Undrawn

import trainSyncNet
from DatasetLoader import DatasetLoader
from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import trained_with
from SyncNetDist import SyncNet

FRAMES, T = 20, 8
DEFAULTS = (
    f"--model tinyModel --nOut 8 --maxFrames {T} --nBatchSize 2 --nDataLoaderThread 1 --device cpu --lr 0.01 "
    "--max_epoch 2 --train_list train.txt --verify_list val.txt --test_list trials.txt --test_path speech "
    "--num_eval 3 --save_path run"
)
OF_TRAINING, OF_VALIDATION = range(6), range(6, 10)  # numbers of the clips, see make_list


@dataclass
class Run:
    """What a run printed, wrote, and gave to its network."""

    folder: Path
    status: int = -1
    out: str = ""
    err: str = ""
    batches: list[tuple[bool, torch.Tensor, torch.Tensor]] = field(default_factory=list)  # (training?, ...)
    crops: int = 0  # embedded for verification
    threads: int = 0
    saves: int = 0
    deterministic: bool = False

    def clips(self, training: bool) -> set[int]:
        """The clips that it trained or validated on."""
        return {
            frame_number(picture) // 977 for kind, video, _ in self.batches if kind == training
            for picture in video[:, :, 0].permute(0, 2, 3, 1).numpy()
        }  # fmt: skip

    def sounds(self, training: bool = True) -> torch.Tensor:
        return torch.cat([audio for kind, _, audio in self.batches if kind == training])

    def pictures(self, training: bool = True) -> torch.Tensor:
        return torch.cat([video for kind, video, _ in self.batches if kind == training])

    def steps(self, training: bool = True) -> int:
        return sum(kind == training for kind, _, _ in self.batches)

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.newest, weights_only=True)

    @property
    def newest(self) -> Path:
        return max((self.folder / "run/model").glob("*.model"))

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "run/model").glob("*.model"))

    def column(self, name: str) -> list[str]:
        """A column of metrics.csv."""
        with open(self.folder / "run/result/metrics.csv", newline="") as file:
            return [row[name] for row in csv.DictReader(file)]

    def losses_add_up(self, split: str, *weights: float) -> bool:
        """Is the loss of each epoch the sum of its parts with these weights?"""
        parts = [self.column(f"{split}_{part}_loss") for part in ("content", "identity", "disentanglement")]
        totals = np.dot(weights, np.array(parts, float))
        return np.allclose(np.array(self.column(f"{split}_loss"), float), totals, rtol=1e-5)

    def setting(self, name: str) -> object:
        """What the newest checkpoint says of a setting."""
        return trained_with(read_checkpoint(str(self.newest)))[name]

    def scores(self, kind: str = "") -> list[str]:
        return (self.folder / f"run/result/eval_scores{kind}.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Lists for training, validation and trials; noises and rooms; a checkpoint of the default run."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = make_list(folder / "clips", 10, FRAMES).read_text().splitlines(keepends=True)
    (folder / "train.txt").write_text("".join(lines[k] for k in OF_TRAINING))
    (folder / "val.txt").write_text("".join(lines[k] for k in OF_VALIDATION))
    make_clip(str(folder / "clips/small.mp4"), FRAMES, size=160)
    small = lines[0].replace("0.mp4", "small.mp4")
    (folder / "resized.txt").write_text("".join([small, *lines[1:6]]))
    (folder / "clips/broken.mp4").write_bytes(b"nothing")
    (folder / "broken.txt").write_text("".join([lines[0].replace("0.mp4", "broken.mp4"), *lines[1:6]]))
    draws = np.random.default_rng(0)
    for name in ("speech", "elsewhere", "cohort", "other_cohort", "noise", "rooms"):
        (folder / name).mkdir()
        for k in range(5):
            sound = (3000 * draws.standard_normal(9000 + 500 * k)).astype(np.int16)
            wavfile.write(folder / name / f"{name if 'cohort' in name else ''}{k}.wav", 16000, sound)
    shutil.rmtree(folder / "other_cohort")
    shutil.copytree(folder / "cohort", folder / "other_cohort")
    make_wav(str(folder / "other_cohort/cohort0.wav"), 9000)
    (folder / "trials.txt").write_text("1 0.wav 1.wav\n0 0.wav 2.wav\n1 2.wav 3.wav\n0 1.wav 3.wav\n")
    (folder / "fewer.txt").write_text("1 0.wav 1.wav\n0 0.wav 2.wav\n")
    (folder / "cohort.txt").write_text("".join(f"cohort{k}.wav\n" for k in range(5)))
    return folder


@pytest.fixture(scope="module")
def make_run(corpus, tmp_path_factory) -> Callable[..., Run]:
    """Runs the command with the defaults and further flags, in a folder with links to the corpus."""

    def make(*flags: str, after: Run | None = None) -> Run:
        folder = tmp_path_factory.mktemp("run")
        for path in corpus.iterdir():
            (folder / path.name).symlink_to(path)
        if after:
            shutil.copytree(after.folder / "run", folder / "run")
        run = Run(folder)
        forward, read = SyncNet.forward, DatasetLoader.read_clip
        vectors, replace = SyncNet.identity_vectors, os.replace

        def forward_noted(self, video, audio, *weights):
            run.batches.append((self.training, video.clone(), audio.clone()))
            run.deterministic |= torch.are_deterministic_algorithms_enabled()
            return forward(self, video, audio, *weights)

        def read_noted(self, *task):
            decoding = [thread for thread in threading.enumerate() if "decode" in thread.name]
            run.threads = max(run.threads, len(decoding))
            return read(self, *task)

        def vectors_noted(self, crops, batch):
            run.crops += len(crops)
            return vectors(self, crops, batch)

        def replace_noted(source, target):
            run.saves += str(target).endswith("training_state.pt")
            replace(source, target)

        outputs = [folder / "out", folder / "err"]
        with (
            pytest.MonkeyPatch.context() as patch,
            open(outputs[0], "w") as out,
            open(outputs[1], "w") as err,
        ):
            patch.chdir(folder)
            patch.setattr(SyncNet, "forward", forward_noted)
            patch.setattr(DatasetLoader, "read_clip", read_noted)
            patch.setattr(SyncNet, "identity_vectors", vectors_noted)
            patch.setattr(os, "replace", replace_noted)
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            patch.setattr("syncnet.training.log.TrainingLog.drawn", lambda _: Undrawn)
            try:
                run.status = trainSyncNet.main([*DEFAULTS.split(), *flags])
            finally:
                torch.use_deterministic_algorithms(False)
        run.out, run.err = (path.read_text() for path in outputs)
        return run

    return make


@pytest.fixture(scope="module")
def default(make_run) -> Run:
    run = make_run()
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="module")
def evaluated(make_run, default) -> Run:
    run = make_run("--eval", after=default)
    assert run.status == 0, run.err
    return run


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def each_same(a: torch.Tensor, b: torch.Tensor) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


def weights_differ(a: Run, b: Run) -> bool:
    ours, theirs = a.weights(), b.weights()
    return any(not same(ours[name], theirs[name]) for name in ours)


def only_sound_of_training_differs(a: Run, b: Run) -> bool:
    return (
        not same(a.sounds(), b.sounds())
        and same(a.sounds(False), b.sounds(False))
        and same(a.pictures(), b.pictures())
    )


def mirrored(run: Run, default: Run) -> bool:
    """Some of the clips, not all, and only in training."""
    ours, theirs = run.pictures(), default.pictures()
    kept, turned = each_same(ours, theirs), each_same(ours, theirs.flip(-1))
    return (
        all(a != b for a, b in zip(kept, turned, strict=True))
        and any(kept)
        and any(turned)
        and same(run.pictures(False), default.pictures(False))
    )


# Flag -> what to add to the default run, and what is then true of (the run, the default run).
TRAINED: dict[str, tuple[str, Callable[[Run, Run], bool]]] = {
    "train_list": (
        "--train_list val.txt",
        lambda run, default: run.clips(True) <= set(OF_VALIDATION) and default.clips(True) <= set(OF_TRAINING),
    ),
    "verify_list": (
        "--verify_list train.txt",
        lambda run, default: run.clips(False) == set(OF_TRAINING) and default.clips(False) == set(OF_VALIDATION),
    ),
    "maxFrames": ("--maxFrames 6", lambda run, _: run.pictures().shape[2] == 6 and run.sounds().shape[1] == 4080),
    "nBatchSize": ("--nBatchSize 3", lambda run, _: {len(video) for _, video, _ in run.batches} == {3}),
    "nTrainPerEpoch": ("--nTrainPerEpoch 4", lambda run, default: (run.steps(), default.steps()) == (4, 6)),
    "nTestPerEpoch": ("--nTestPerEpoch 2", lambda run, default: (run.steps(False), default.steps(False)) == (2, 4)),
    "nDataLoaderThread": ("--nDataLoaderThread 3", lambda run, default: (run.threads, default.threads) == (3, 1)),
    "allow_resize": ("--train_list resized.txt --allow_resize", lambda run, _: run.status == 0),
    "augment_noise": ("--augment_noise noise", only_sound_of_training_differs),
    "augment_rir": ("--augment_rir rooms", only_sound_of_training_differs),
    "augment_prob": (
        "--augment_noise noise --augment_prob 1",
        lambda run, default: not any(each_same(run.sounds(), default.sounds())),
    ),
    "flip": ("--flip", mirrored),
    "model": ("--model plainModel", lambda run, _: not any("norm" in name for name in run.weights())),
    "crop": ("--crop mouth", lambda run, default: run.setting("crop") == "mouth" and weights_differ(run, default)),
    "nOut": ("--nOut 4", lambda run, _: run.weights()["__S__.voice.weight"].shape[0] == 4),
    "temporal_stride": (
        "--temporal_stride 2",  # four moments of 8 frames become two
        lambda run, default: (default.column("content_top1_chance"), run.column("content_top1_chance"))
        == (["25", "25"], ["50", "50"]),
    ),
    "max_epoch": ("--max_epoch 1", lambda run, default: (len(run.checkpoints), len(default.checkpoints)) == (1, 2)),
    "lr": (
        "--lr 0.02",
        lambda run, default: run.column("learning_rate")[0] == "0.02" and weights_differ(run, default),
    ),
    "lr_decay": ("--lr_decay 0.5", lambda run, _: run.column("learning_rate") == ["0.01", "0.005"]),
    "alphaC": ("--alphaC 0", lambda run, _: run.column("train_content_loss") == ["", ""]),
    "alphaI": ("--alphaI 0", lambda run, _: run.column("train_identity_loss") == ["", ""]),
    "alphaD": (
        "--alphaC 0.7 --alphaI 1.3 --alphaD 0.5",
        lambda run, default: default.column("train_disentanglement_loss") == ["", ""]
        and run.losses_add_up("train", 0.7, 1.3, 0.5)
        and run.losses_add_up("val", 1, 1, 1),
    ),
    "distance": (
        "--distance euclidean",
        lambda run, default: run.setting("distance") == "euclidean" and weights_differ(run, default),
    ),
    "seed": ("--seed 1", lambda run, default: not same(run.sounds(), default.sounds())),
    "save_path": ("--save_path here/there", lambda run, _: (run.folder / "here/there/model").is_dir()),
    "save_steps": ("--save_steps 1", lambda run, default: run.saves == default.saves + 2 * 3),
    "keep": ("--keep 1", lambda run, _: run.checkpoints == ["model000000002.model"]),
    "max_bad": (
        "--train_list broken.txt --max_bad 0.5",
        lambda run, _: run.status == 0 and "broken.mp4" in (run.folder / "run/result/bad_clips.txt").read_text(),
    ),
    "tensorboard": (
        "--tensorboard",
        lambda run, default: bool(list((run.folder / "run/result/tensorboard").glob("*tfevents*")))
        and not (default.folder / "run/result/tensorboard").exists(),
    ),
    "test_interval": (
        "--test_interval 2",
        lambda run, _: [bool(eer) for eer in run.column("eer")] == [False, True]
        and run.crops == 4 * 3  # of four files, --num_eval each
        and json.loads((run.folder / "run/result/best.json").read_text())["epoch"] == 2,
    ),
    "test_sync": (
        "--test_interval 2 --test_sync 2 --alphaI 0",
        lambda run, _: [bool(share) for share in run.column("sync_accuracy_5")] == [False, True]
        and "eer" not in (run.folder / "run/result/metrics.csv").read_text(),
    ),
    "precision": (
        "--precision bf16",
        lambda run, default: weights_differ(run, default)
        and np.allclose(
            [float(loss) for loss in run.column("train_loss")],
            [float(loss) for loss in default.column("train_loss")],
            rtol=0.2,
        ),
    ),
    "deterministic": (
        "--deterministic",
        lambda run, default: run.deterministic and not default.deterministic and not weights_differ(run, default),
    ),
    "device": (
        "--device cpu",
        lambda run, default: "running on cpu" in run.out and not weights_differ(run, default),
    ),
}  # fmt: skip
# What the run without the flag, but with the rest of what is added, ends with.
REFUSED_WITHOUT = {"allow_resize": "--allow_resize scales one", "max_bad": "more than --max_bad 0.01"}


@pytest.mark.parametrize("flag", TRAINED)
def test_flag_of_training(make_run, default, flag):
    added, holds = TRAINED[flag]
    run = make_run(*added.split())
    assert run.status == 0, run.err
    assert holds(run, default)
    if flag in REFUSED_WITHOUT:
        without = make_run(*added.split(f"--{flag}")[0].split())
        assert without.status == 1 and REFUSED_WITHOUT[flag] in without.err


def test_initial_model(make_run, default):
    given = ("--initial_model", str(default.newest))
    run = make_run(*given, "--lr", "0", "--max_epoch", "1")
    assert same(run.weights()["__S__.voice.weight"], default.weights()["__S__.voice.weight"])
    further = make_run("--initial_model", "none.model", "--max_epoch", "3", after=default)
    assert further.status == 0 and "none.model is not used" in further.out  # what is in --save_path wins


def test_force_resume(make_run, default):
    changed = ("--alphaC", "0.5", "--max_epoch", "3")
    refused, forced = make_run(*changed, after=default), make_run(*changed, "--force_resume", after=default)
    assert refused.status == 1 and forced.status == 0 and len(forced.checkpoints) == 3


def test_decode_timeout(make_run, monkeypatch):
    """A clip that hangs is replaced when its time is up."""
    over, real = threading.Event(), DatasetLoader.read_clip

    def read(self, clip, *task):
        if clip.video.endswith("/0.mp4"):
            over.wait(100)
        return real(self, clip, *task)

    monkeypatch.setattr(DatasetLoader, "read_clip", read)
    run = make_run("--decode_timeout", "1", "--max_bad", "0.5", "--max_epoch", "1")
    over.set()
    assert run.status == 0, run.err
    assert "0.mp4: took longer than 1 s" in (run.folder / "run/result/bad_clips.txt").read_text()


def test_compile(make_run, default, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "SyncNetDist.compile_embeddings", lambda function: compiled.append(function) or function
    )
    assert not weights_differ(make_run("--compile"), default) and len(compiled) == 1


ASNORM = "--score_norm asnorm --cohort cohort.txt --cohort_path cohort "
EVALUATED: dict[str, tuple[str, Callable[[Run, Run], bool]]] = {
    "eval": ("", lambda run, _: run.out.splitlines()[-1].startswith("EER ") and not run.batches),
    "test_list": ("--test_list fewer.txt", lambda run, default: run.scores() == default.scores()[:2]),
    "test_path": ("--test_path elsewhere", lambda run, default: run.scores() != default.scores()),
    "num_eval": ("--num_eval 2", lambda run, default: (run.crops, default.crops) == (4 * 2, 4 * 3)),
    "score_norm": (
        ASNORM,
        lambda run, default: run.scores() == default.scores() != run.scores("_asnorm") and run.out.count("EER ") == 2,
    ),
    "save_embeddings": ("--save_embeddings x.npz", lambda run, _: (run.folder / "x.npz").exists()),
}  # fmt: skip


@pytest.mark.parametrize("flag", EVALUATED)
def test_flag_of_evaluation(make_run, default, evaluated, flag):
    added, holds = EVALUATED[flag]
    run = make_run("--eval", *added.split(), after=default)
    assert run.status == 0, run.err
    assert holds(run, evaluated)


def test_untrained(make_run):
    assert make_run("--eval").status == 1  # there is no checkpoint
    run = make_run("--eval", "--untrained")
    assert run.status == 0 and "Evaluating an untrained network" in run.out


@pytest.fixture(scope="module")
def normalized(make_run, default) -> Run:
    return make_run("--eval", *ASNORM.split(), after=default)


@pytest.mark.parametrize(
    ("flag", "embedded"),
    [
        ("--cohort some.txt", 4 + 3),
        ("--cohort_path other_cohort", 4 + 5),
        ("--cohort_size 3", 4 + 3),
        ("--top_n 2", 4 + 5),
    ],
)
def test_flag_of_the_cohort(make_run, default, normalized, corpus, flag, embedded):
    """Other cohorts normalize otherwise; the raw scores stay."""
    (corpus / "some.txt").write_text("".join(f"cohort{k}.wav\n" for k in range(3)))
    run = make_run("--eval", *ASNORM.split(), *flag.split(), after=default)
    assert run.status == 0, run.err
    assert run.crops == embedded * 3 and run.scores() == normalized.scores()
    assert run.scores("_asnorm") != normalized.scores("_asnorm")


def test_the_seed_draws_the_cohort(make_run, default):
    drawn = {
        tuple(run.scores("_asnorm"))
        for seed in ("0", "1", "1")
        for run in [make_run("--eval", *ASNORM.split(), "--cohort_size", "3", "--seed", seed, after=default)]
    }
    assert len(drawn) == 2


def test_load_embeddings(make_run, default, evaluated):
    saved = make_run("--eval", "--save_embeddings", "x.npz", after=default)
    run = make_run("--eval", "--load_embeddings", str(saved.folder / "x.npz"), after=default)
    assert run.crops == 0 and run.scores() == evaluated.scores()


def test_every_flag_is_tested():
    alone = {"initial_model", "force_resume", "decode_timeout", "compile", "untrained", "load_embeddings"}
    of_cohort = {"cohort", "cohort_path", "cohort_size", "top_n"}
    assert vars(trainSyncNet.parse_args([])).keys() == {*TRAINED, *EVALUATED, *alone, *of_cohort}
