"""The flags of trainSyncNet.py."""

import argparse
from collections.abc import Mapping
from typing import NoReturn

from syncnet.networks.choices import AUTO, CROPS, DISTANCES, PRECISIONS
from syncnet.networks.settings import RANGES, default_settings
from syncnet.support.commands import Parser, at_least

EXAMPLE = (
    "python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --train_list data/dev.txt --verify_list data/test.txt "
    "--save_path data/exp01",
    "python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --eval --initial_model data/voxsrc2020_baseline.model",
)

SAVE_PATH = "./data/exp01"


class Flags(argparse.Namespace):
    """The values of all flags, read-only; `replaced` returns a copy with other values.

    given: the network settings that the user gave, by name. save_path_given: whether --save_path was given. Both are
    slots, so that vars() holds only the flags.
    """

    __slots__ = ("given", "save_path_given")
    given: dict[str, object]
    save_path_given: bool

    def __init__(self, values: Mapping[str, object], given: dict[str, object], save_path_given: bool):
        vars(self).update(values)
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "save_path_given", save_path_given)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"flags are read-only; Flags.replaced({name}=...) makes others")

    def replaced(self, **values: object) -> "Flags":
        """Return a copy with new values for some flags."""
        return Flags(vars(self) | values, self.given, self.save_path_given)


def parse_args(argv: list[str] | None = None) -> Flags:
    parser = Parser(
        description="Train SyncNet on talking-face clips, or evaluate it on speaker verification trials.",
        example=EXAMPLE,
    )
    positive, not_negative = at_least(int, 1), at_least(float, 0)

    data = parser.add_argument_group("data")
    data.add_argument(
        "--train_list",
        default="data/dev.txt",
        help="list of training clips from makeFileList.py, with lines `mp4path wavpath offset frames`",
    )
    data.add_argument(
        "--verify_list",
        default="data/test.txt",
        help="list of clips of other speakers, from makeFileList.py, for validation after every epoch",
    )
    data.add_argument(
        "--maxFrames",
        type=at_least(int, RANGES["maxFrames"][0]),
        default=argparse.SUPPRESS,
        help="video frames (40 ms each) per training or evaluation crop; the published model used 50. "
        "Longer crops improve identification; memory and time are proportional to the length"
        + unless("maxFrames"),
    )
    data.add_argument(
        "--nBatchSize",
        type=positive,
        default=30,
        help="clips per batch, at least 2. Every voice in a batch is a negative for every other face, so this "
        "affects the identity loss, not only the speed",
    )
    data.add_argument("--nTrainPerEpoch", type=positive, default=100000, help="training clips per epoch")
    data.add_argument("--nTestPerEpoch", type=positive, default=10000, help="validation clips per epoch")
    data.add_argument(
        "--nDataLoaderThread",
        type=positive,
        default=4,
        help="threads that decode clips; use one per core, or fewer if `data wait` on the progress bar is near 0",
    )
    data.add_argument(
        "--allow_resize",
        action="store_true",
        help="scale videos that are not 224x224 instead of refusing them",
    )

    augmentation = parser.add_argument_group(
        "augmentation", "applies to training clips only, never to validation or evaluation"
    )
    augmentation.add_argument(
        "--augment_noise",
        default="",
        metavar="DIR",
        help="add noise from this folder: MUSAN (signal-to-noise ratio 0 to 15 dB for noise, 5 to 15 dB for music, "
        "13 to 20 dB for speech) or any other (5 to 15 dB). 16 kHz mono wavs, which convertAudio.py makes, load "
        "fastest",
    )
    augmentation.add_argument(
        "--augment_rir",
        default="",
        metavar="DIR",
        help="convolve voices with room impulse responses from this folder: RIRS_NOISES or any other",
    )
    augmentation.add_argument(
        "--augment_prob",
        type=not_negative,
        default=0.6,
        help="fraction of clips with augmented audio; with both folders, half of these get noise and half get a "
        "room. Near 1, the network hardly ever hears unmodified recordings",
    )
    augmentation.add_argument(
        "--flip",
        action="store_true",
        help="flip half of the clips, drawn at random, horizontally; all frames of a clip in the same way",
    )

    network = parser.add_argument_group("network")
    network.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        help="module in models/ that defines the network" + unless("model"),
    )
    network.add_argument(
        "--crop",
        choices=CROPS,
        default=argparse.SUPPRESS,
        help="input of the face stream: the whole face track, as in the published model, or the mouth region scaled "
        "up, which shows more of the lips and less of the person. A checkpoint works only with its own crop"
        + unless("crop"),
    )
    network.add_argument(
        "--nOut", type=positive, default=argparse.SUPPRESS, help="size of the embeddings" + unless("nOut")
    )
    network.add_argument(
        "--temporal_stride",
        type=positive,
        default=argparse.SUPPRESS,
        help="frames between embeddings; 2 halves the cost, as in the published model"
        + unless("temporal_stride"),
    )
    network.add_argument(
        "--initial_model",
        default="",
        help="checkpoint to start from or to evaluate. In training, a checkpoint in --save_path takes precedence",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--max_epoch", type=positive, default=500, help="last epoch")
    training.add_argument(
        "--lr",
        type=not_negative,
        default=0.0001,
        help="learning rate of the first epoch; the published model was trained with 0.0001. If you change it with "
        "--force_resume, the rate continues as if the run had started with the new value",
    )
    training.add_argument(
        "--lr_decay",
        type=not_negative,
        default=0.95,
        help="factor applied to the learning rate after every epoch",
    )
    training.add_argument(
        "--alphaC",
        type=not_negative,
        default=1.0,
        help="weight of the content (sync) loss; 0 trains identity only",
    )
    training.add_argument(
        "--alphaI",
        type=not_negative,
        default=1.0,
        help="weight of the identity loss; 0 trains lip sync only",
    )
    training.add_argument(
        "--alphaD",
        type=not_negative,
        default=0.0,
        help="weight of the paper's disentanglement loss, which the 2020 baseline omits: content embeddings must not "
        "reveal the speaker, and identity embeddings must not reveal the time",
    )
    training.add_argument(
        "--distance",
        choices=DISTANCES,
        default=argparse.SUPPRESS,
        help="similarity of embeddings in the losses. cosine: with a learned scale and bias, as in the published "
        "model. euclidean: 1 / distance, as in the paper. Verification always uses cosine similarity"
        + unless("distance"),
    )
    training.add_argument(
        "--seed",
        type=at_least(int, 0),
        default=0,
        help="random seed; runs with the same seed, lists and machine are the same (on a GPU, bit by bit only with "
        "--deterministic)",
    )
    training.add_argument(
        "--save_path",
        help="folder of the run, with checkpoints in model/ and scores.txt in result/; the same command resumes the "
        f"run (default: {SAVE_PATH}). Without this flag, --eval --initial_model x.model writes to x_eval/",
    )
    training.add_argument(
        "--save_steps",
        type=at_least(int, 0),
        default=1000,
        help="steps between saves of the exact state within an epoch; a killed process loses at most this many "
        "steps. 0: save only after each epoch",
    )
    training.add_argument(
        "--keep", type=at_least(int, 0), default=0, help="number of newest checkpoints to keep; 0: all"
    )
    training.add_argument(
        "--force_resume", action="store_true", help="resume in --save_path even if settings have changed"
    )
    training.add_argument(
        "--max_bad",
        type=not_negative,
        default=0.01,
        help="stop if more than this fraction of an epoch's clips cannot be read; up to that, they are logged in "
        "result/bad_clips.txt and replaced by other clips",
    )
    training.add_argument(
        "--decode_timeout",
        type=at_least(float, 1),
        default=60.0,
        help="seconds after which a clip that is still being decoded is treated as unreadable",
    )

    training.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write the columns of metrics.csv as TensorBoard scalars, to result/tensorboard",
    )

    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument(
        "--eval",
        action="store_true",
        help="evaluate on --test_list instead of training; the last line is the EER",
    )
    evaluation.add_argument(
        "--untrained",
        action="store_true",
        help="with --eval: score a network with random weights, for comparison; otherwise --eval needs a checkpoint "
        "in --save_path or --initial_model",
    )
    evaluation.add_argument(
        "--test_list",
        default="voxceleb/test_list.txt",
        help="list of trials, with lines `label fileA fileB` (label 1: same speaker) or Kaldi's `fileA fileB "
        "target|nontarget`; without labels, only scores are written",
    )
    evaluation.add_argument(
        "--test_path",
        default="voxceleb/voxceleb1",
        help="base folder of the file names in --test_list, or a wav.scp with their paths",
    )
    evaluation.add_argument(
        "--num_eval",
        type=positive,
        default=10,
        help="evenly spaced crops per utterance; a score is the mean over all pairs of crops",
    )
    evaluation.add_argument(
        "--test_interval",
        type=at_least(int, 0),
        default=0,
        help="epochs between evaluations on --test_list during training, which write EER and minDCF to metrics.csv "
        "and the best epoch to result/best.json (--keep never removes its checkpoint). 0: never",
    )
    evaluation.add_argument(
        "--test_sync",
        type=at_least(int, 0),
        default=0,
        metavar="N",
        help="with --test_interval, also measure the sync accuracy (see inferSyncNet.py accuracy) on N clips of "
        "--verify_list: sync_accuracy_5 ... _15 in metrics.csv. With --alphaI 0, no trials are scored in this case",
    )
    evaluation.add_argument(
        "--score_norm",
        choices=("none", "asnorm"),
        default="none",
        help="asnorm: adaptive symmetric normalization with --cohort; raw scores are reported too",
    )
    evaluation.add_argument(
        "--cohort",
        default="",
        help="utterances of speakers who are not in the trials, for --score_norm: a list with one file name per "
        "line, or a list of clips from makeFileList.py",
    )
    evaluation.add_argument(
        "--cohort_path",
        default=None,
        help="base folder of the file names in --cohort, or a wav.scp with their paths (default: --test_path)",
    )
    evaluation.add_argument(
        "--cohort_size",
        type=at_least(int, 0),
        default=0,
        help="number of utterances drawn at random from --cohort; 0: all",
    )
    evaluation.add_argument(
        "--top_n",
        type=at_least(int, 2),
        default=300,
        help="number of nearest cohort utterances used to normalize a score; usually 200 to 400 out of thousands",
    )
    evaluation.add_argument(
        "--save_embeddings", default="", metavar="NPZ", help="save the embeddings of --eval to this file"
    )
    evaluation.add_argument(
        "--load_embeddings",
        default="",
        metavar="NPZ",
        help="reuse embeddings from this file, written by --save_embeddings with the same weights; only missing ones "
        "are computed",
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default=None, help="cpu, cuda, cuda:1, ... (default: cuda if available, else cpu)"
    )
    machine.add_argument(
        "--precision",
        choices=(*PRECISIONS, AUTO),
        default="fp32",
        help="fp32: true float32. tf32: GPU tensor cores with 10-bit mantissas. bf16: autocast; needs less memory "
        "and is faster on most GPUs and some CPUs (training warns if it is slower); losses and the audio front end "
        "stay in float32. auto: the faster of fp32 and bf16, measured in about a second; a resumed run keeps it",
    )
    machine.add_argument(
        "--deterministic",
        action="store_true",
        help="make runs on the same GPUs equal bit by bit, using PyTorch's slower deterministic algorithms; on a CPU "
        "runs are equal without this flag",
    )
    machine.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile: the first step is slow, later ones are faster on most GPUs but not on most CPUs; "
        "results differ by rounding. Needs a C++ compiler",
    )
    values = vars(parser.parse_args(argv))
    save_path_given = values["save_path"] is not None
    given = {name: values[name] for name in default_settings() if name in values}
    args = Flags(
        default_settings() | values | {"save_path": values["save_path"] or SAVE_PATH}, given, save_path_given
    )
    if args.nBatchSize < 2 and not args.eval:
        parser.error("--nBatchSize must be at least 2: with one clip there is no other voice to tell apart")
    if (args.score_norm == "asnorm") != bool(args.cohort):
        parser.error("--score_norm asnorm needs a --cohort, and --cohort is for --score_norm asnorm")
    if args.untrained and (args.initial_model or not args.eval):
        parser.error("--untrained is for --eval without --initial_model")
    if args.augment_prob > 1:
        parser.error(f"--augment_prob {args.augment_prob:g}: a share of the clips, from 0 to 1")
    sounds = args.augment_noise or args.augment_rir
    if not sounds and args.augment_prob != parser.get_default("augment_prob"):
        parser.error("--augment_prob is for --augment_noise and --augment_rir")
    if not (args.alphaC or args.alphaI):
        parser.error("--alphaC and --alphaI are both 0: nothing is left to train")
    return args


def not_used(args: argparse.Namespace) -> list[str]:
    """Return one line per group of given flags that have no effect.

    With --eval, training flags are not reported, so that appending --eval to a training command evaluates the run.
    """
    trials, of_asnorm = ("test_list", "test_path", "num_eval"), ("cohort_path", "cohort_size", "top_n")
    of_eval = ("save_embeddings", "load_embeddings", "score_norm", "cohort", *of_asnorm)
    reasons: list[tuple[tuple[str, ...], str]] = []
    if not (args.eval or args.test_interval):
        reasons.append((trials, "for --eval and --test_interval"))
        reasons.append((("test_sync",), "for --test_interval"))
    if not args.eval:
        reasons.append((of_eval, "for --eval only (--test_interval gives raw scores)"))
    elif args.score_norm == "none":
        reasons.append((of_asnorm, "for --score_norm asnorm"))
    if args.eval and args.compile:
        reasons.append((("compile",), "for training only"))
    usual = defaults()
    lines = []
    for names, reason in reasons:
        if given := [f"--{name}" for name in names if getattr(args, name) != usual[name]]:
            lines.append(f"not used: {', '.join(given)}, {reason}")
    if args.test_interval and not (args.eval or args.alphaI or args.test_sync):
        lines.append(
            "--alphaI 0 does not train the voice identity, which --test_interval scores: its EER is meaningless"
        )
    return lines


def defaults() -> dict[str, object]:
    """Return the default of each flag."""
    return vars(parse_args([]))


def unless(name: str) -> str:
    """Format the default of a setting that a checkpoint may record, for a help text."""
    return f" (default: that of the checkpoint, else {default_settings()[name]})"
