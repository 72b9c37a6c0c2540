"""Each flag of the commands beside trainSyncNet.py does what its help says.

A flag of inference is followed to the function that it is for, which other tests show to do it; what makes data is
run with and without the flag. NAMED has the flags whose own tests compare more than one run.
"""

import argparse
import contextlib
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from clipMaker import make_clip, make_txt, make_wav

import convertAudio
import inferSyncNet
import makeDemoData
import makeFaceTracks
import makeFileList
from syncnet.inference.protocols import PROTOCOLS
from syncnet.inference.videos import FaceTrack, Tracks
from syncnet.loading.two_lists import next_step
from syncnet.media.clips import Clip, read_list
from syncnet.support.commands import Parser
from syncnet.support.errors import UserError
from SyncNetDist import SyncNet
from tuneThreshold import main as tune

TESTS = Path(__file__).parent


def flags_of(*command: str) -> set[str]:
    """The flags of a command, without their dashes, and its other arguments."""
    parsers: list[Parser] = []

    def parse(self, *_):
        parsers.append(self)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Parser, "parse_known_args", parse)
        importlib.import_module(command[0]).parse_args([])
    actions = parsers[0]._actions
    if len(command) > 1:
        (choice,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
        actions = choice.choices[command[1]]._actions
    names = {
        action.option_strings[-1].removeprefix("--") if action.option_strings else action.dest
        for action in actions
    }
    return names - {"help", "version"}


# --------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A checkpoint, and clips of two people with their sound."""
    folder = tmp_path_factory.mktemp("corpus")
    SyncNet("tinyModel", nOut=8, maxFrames=7, temporal_stride=2, device="cpu").saveParameters(
        f"{folder}/x.model"
    )
    for k in range(2):
        make_clip(f"{folder}/mp4/id{k}/a/1.mp4", 12)
        make_wav(f"{folder}/wav/id{k}/a/1.wav", 12 * 640)
    lines = [f"{folder}/mp4/id{k}/a/1.mp4 {folder}/wav/id{k}/a/1.wav 0 12\n" for k in range(2)]
    (folder / "list.txt").write_text("".join(lines))
    return folder


def arguments_of(function: str, *typed: object) -> dict[str, object]:
    """The arguments that a command of inferSyncNet.py gives to a function."""
    module, _, name = function.rpartition(".")
    owner = importlib.import_module(module).SyncNet if name == "__init__" else importlib.import_module(module)
    signature = inspect.signature(getattr(owner, name))
    found: dict[str, object] = {}

    def call(*args: object, **more: object) -> None:
        bound = signature.bind(*args, **more)
        bound.apply_defaults()
        found.update(bound.arguments)
        raise UserError("called")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        inferSyncNet.main([str(word) for word in typed])
    return found


WAV, VIDEO, LIST = "{}/wav/id0/a/1.wav", "{}/mp4/id0/a/1.mp4", "{}/list.txt"
INPUTS = {
    "embed": ("--output", "{}/v.npz", WAV),
    "verify": (WAV, "{}/wav/id1/a/1.wav"),
    "offset": (VIDEO, "--wav", WAV),
    "lse": (VIDEO, "--wav", WAV),
    "show": ("--video", VIDEO, "--output", "{}/seen.mp4"),
    "accuracy": (VIDEO, "--wav", WAV),
    "resync": (VIDEO, "--output", "{}/moved.mp4"),
    "speakers": (VIDEO, "--csv", "{}/spans.csv"),
    "match": (LIST, "--ways", "2"),
    "export": ("--stream", "voice", "--head", "identity", "--output", "{}/x.onnx"),
}


def typed(command: str, corpus: Path, *more: str) -> list[str]:
    given = [command, "--model", "tinyModel", "--initial_model", "{}/x.model", *INPUTS[command], *more]
    return [word.format(corpus) for word in given]


NETWORK = {
    "nOut": ("8", "4"),
    "maxFrames": ("7", "9"),
    "temporal_stride": ("2", "1"),
    "crop": ("face", "mouth"),
    "precision": ("fp32", "bf16"),
    "device": ("None", "cpu"),
    "model": ("tinyModel", "plainModel"),
}


def network_flags(command: str) -> list[str]:
    """Export computes on the CPU, exactly."""
    return [flag for flag in NETWORK if command != "export" or flag not in ("device", "precision")]


@pytest.mark.parametrize(
    ("command", "flag"), [(command, flag) for command in INPUTS for flag in network_flags(command)]
)
def test_flag_of_the_network(corpus, command, flag):
    """By default as the checkpoint says, else as the flag says."""
    usual, other = NETWORK[flag]
    plain = arguments_of("SyncNetDist.__init__", *typed(command, corpus))
    changed = arguments_of("SyncNetDist.__init__", *typed(command, corpus, f"--{flag}", other))
    assert (str(plain[flag]), str(changed[flag])) == (usual, other)
    assert {name for name in plain if plain[name] != changed[name]} - {"self"} == {flag}


@pytest.mark.parametrize("command", INPUTS)
def test_flag_initial_model(corpus, command, capsys):
    words = [word.replace("x.model", "none.model") for word in typed(command, corpus)]
    assert inferSyncNet.main(words) == 1
    assert "none.model: no such checkpoint" in capsys.readouterr().err


# Command -> the function that it calls; flag -> (what to add, the argument, its default, what it then is).
FUNCTIONS = {
    "embed": "syncnet.inference.embeddings.iter_embeddings",
    "verify": "syncnet.inference.embeddings.verify",
    "offset": "syncnet.inference.offset.offset",
    "lse": "syncnet.inference.lip_sync.lse",
    "show": "syncnet.inference.show.show",
    "accuracy": "syncnet.inference.accuracy.accuracy",
    "resync": "syncnet.inference.resync.offset",
    "speakers": "syncnet.inference.lip_sync.lse",
    "match": "syncnet.inference.match.match",
    "export": "syncnet.inference.onnx_file.export",
}
PASSED: dict[str, dict[str, tuple]] = {
    "embed": {
        "inputs": ("{}/wav/id1/a/1.wav", "files", [WAV], [WAV, "{}/wav/id1/a/1.wav"]),
        "face": ("{}/mp4/id0/a/1.mp4 --face", "face", False, True),
        "num_eval": ("--num_eval 3", "num_eval", 10, 3),
        "per_crop": ("--per_crop", "per_crop", False, True),
        "nBatchSize": ("--nBatchSize 3", "batch", None, 3),
        "allow_resize": ("--allow_resize", "allow_resize", False, True),
    },
    "verify": {
        "num_eval": ("--num_eval 3", "num_eval", 10, 3),
        "nBatchSize": ("--nBatchSize 3", "batch", None, 3),
    },
    "offset": {
        "wav": ("--wav {}/wav/id1/a/1.wav", "wav", WAV, "{}/wav/id1/a/1.wav"),
        "allow_resize": ("--allow_resize", "allow_resize", False, True),
        "max_offset": ("--max_offset 2", "max_offset", 15, 2),
    },
    "lse": {
        "wav": ("--wav {}/wav/id1/a/1.wav", "wav", WAV, "{}/wav/id1/a/1.wav"),
        "allow_resize": ("--allow_resize", "allow_resize", False, True),
        "max_offset": ("--max_offset 2", "max_offset", 15, 2),
        "nBatchSize": ("--nBatchSize 3", "batch", 16, 3),
    },
    "show": {
        "max_offset": ("--max_offset 2", "max_offset", 15, 2),
        "nBatchSize": ("--nBatchSize 3", "batch", 16, 3),
        "video": ("--video x.mp4", "video", VIDEO, "x.mp4"),
        "output": ("--output {}/other.mp4", "output", "{}/seen.mp4", "{}/other.mp4"),
        "in_sync": ("--in_sync 2", "in_sync", None, 2.0),
    },
    "accuracy": {
        "wav": ("--wav {}/wav/id1/a/1.wav", "wav", WAV, "{}/wav/id1/a/1.wav"),
        "nBatchSize": ("--nBatchSize 3", "batch", 16, 3),
        "allow_resize": ("--allow_resize", "allow_resize", False, True),
    },
    "resync": {"max_offset": ("--max_offset 2", "max_offset", 15, 2)},
    "speakers": {
        "max_offset": ("--max_offset 2", "max_offset", 15, 2),
        "nBatchSize": ("--nBatchSize 3", "batch", 16, 3),
    },
    "match": {
        "num_eval": ("--num_eval 3", "num_eval", 10, 3),
        "nBatchSize": ("--nBatchSize 3", "batch", None, 3),
        "allow_resize": ("--allow_resize", "allow_resize", False, True),
        "ways": ("--ways 2 3", "ways", [2], [2, 3]),
    },
    "export": {
        "stream": ("--stream face", "stream", "voice", "face"),
        "head": ("--head content", "head", "identity", "content"),
        "output": ("--output {}/other.onnx", "output", "{}/x.onnx", "{}/other.onnx"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "flag"), [(command, flag) for command in PASSED for flag in PASSED[command]]
)
def test_flag_reaches_its_function(corpus, command, flag, monkeypatch):
    monkeypatch.setattr("syncnet.inference.show.tracks_folder", lambda *_: contextlib.nullcontext("tracks"))
    track = FaceTrack("a.mp4", "a.wav", "a", "a.mp4")
    for name in ("resync", "speakers"):
        monkeypatch.setattr(
            f"syncnet.inference.{name}.tracks_of_video",
            lambda *_, **__: contextlib.nullcontext(Tracks([track])),
        )
    added, argument, usual, other = PASSED[command][flag]

    def filled(value: object) -> object:
        if isinstance(value, list):
            return [filled(part) for part in value]
        return value.format(corpus) if isinstance(value, str) else value

    plain = arguments_of(FUNCTIONS[command], *typed(command, corpus))
    changed = arguments_of(FUNCTIONS[command], *typed(command, corpus, *added.split()))
    assert (plain[argument], changed[argument]) == (filled(usual), filled(other))


MAKERS = ("offset", "lse", "show", "resync", "speakers")
MAKING = {"detect_every": (5, 3), "min_frames": (34, 21), "min_face": (60, 33)}


@pytest.mark.parametrize("command", MAKERS)
def test_flags_of_the_tracks_that_are_made(corpus, command, capsys):
    module = command if command in ("offset", "lse") else "videos"
    function = f"syncnet.inference.{module}.face_tracks"
    plain = arguments_of(function, *typed(command, corpus))
    for flag, (usual, other) in MAKING.items():
        changed = arguments_of(function, *typed(command, corpus, f"--{flag}", str(other)))
        assert (getattr(plain["rule"], flag), getattr(changed["rule"], flag)) == (usual, other)
    changed = arguments_of(function, *typed(command, corpus, "--tracks", "here", "--nWorkers", "7"))
    assert (plain["args"].tracks, changed["args"].tracks, changed["args"].nWorkers) == (None, "here", 7)
    assert inferSyncNet.main(typed(command, corpus, "--face_detector", "none.onnx")) == 1
    assert "--face_detector none.onnx: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if protocol.is_named])
def test_a_protocol_looks_at_every_frame(corpus, name):
    """By its own sizes, in whole shots."""
    rule = arguments_of("syncnet.inference.lse.face_tracks", *typed("lse", corpus, "--protocol", name))[
        "rule"
    ]
    least = {"wav2lip-lrs": 34, "wav2lip-real": 101, "latentsync": 51, "mocha": 51, "mova": 21}
    face = 60 if name == "wav2lip-lrs" else 100
    assert (rule.detect_every, rule.min_frames, rule.min_face) == (1, least[name], face) and not rule.divide


# --------------------------------------------------------------- lists, tracks, demo data


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Clips of seven people: one with damaged pictures, one of another size, the others usable."""
    folder = tmp_path_factory.mktemp("clips")
    for k in range(7):
        name = f"id{k}/a/1"
        make_clip(f"{folder}/mp4/{name}.mp4", 30, size=160 if k == 6 else 224, first=100 * k)
        make_wav(f"{folder}/wav/{name}.wav", 30 * 640)
        make_txt(f"{folder}/txt/{name}.txt", offset=k)
    damaged = folder / "mp4/id5/a/1.mp4"
    data = bytearray(damaged.read_bytes())
    place = data.index(b"mdat") + 2000
    data[place : place + 300] = bytes(300)
    damaged.write_bytes(data)
    return folder


USABLE = {f"id{k}": k for k in range(5)}  # person: offset
LISTED = {  # flag -> (what to add, the people and offsets in the list, those in another file)
    "no_txt": ("--no_txt", dict.fromkeys(USABLE, 0), None),
    "check": ("--check packets", USABLE | {"id5": 5}, None),
    "allow_resize": ("--allow_resize", USABLE | {"id6": 6}, None),
    "nWorkers": ("--nWorkers 2", USABLE, None),
    "val_output": ("--val_output {}/val.txt", 4, 1),
    "val_fraction": ("--val_output {}/val.txt --val_fraction 0.54", 2, 3),
    "shards": ("--shards {}/shards", USABLE, [5]),
    "shard_clips": ("--shards {}/shards --shard_clips 3", USABLE, [3, 2]),
}


@pytest.mark.parametrize("flag", [None, *LISTED])
def test_flag_of_a_list(clips, tmp_path, flag):
    """Against a list without the flag."""
    added, expected, other = LISTED[flag] if flag else ("", USABLE, None)
    given = ["--nWorkers", "1", "--output", f"{tmp_path}/list.txt"]
    given += [f"--{kind}_dir={clips}/{kind}" for kind in ("mp4", "wav", "txt")]
    assert makeFileList.main([*given, *added.format(tmp_path).split()]) == 0
    listed = read_list(f"{tmp_path}/list.txt")
    found = {person: clip.offset for clip in listed for person in re.findall(r"id\d", clip.video)}
    assert len(listed) == (expected if isinstance(expected, int) else len(expected))
    if "val" in added:
        validating = read_list(f"{tmp_path}/val.txt")
        assert len(validating) == other and not {clip.video for clip in listed} & {
            c.video for c in validating
        }
    else:
        assert found == expected
    if "shards" in added:
        shards = sorted((tmp_path / "shards").iterdir())
        assert [sum(str(shard) in clip.video for clip in listed) for shard in shards] == other


@pytest.mark.parametrize("resize", [False, True])
def test_the_training_of_scaled_clips_scales_them_too(resize):
    args = argparse.Namespace(output="dev.txt", val_output="val.txt", val_fraction=0.5, allow_resize=resize)
    clips = {f"id{k}/a/{n}.mp4": Clip("a.mp4", "a.wav", 0, 60) for k in range(2) for n in range(9)}
    line = next_step(args, [], clips, (40, 8))
    assert line.startswith("Next: ") and ("--allow_resize" in line) == resize


def test_flag_resume_of_a_list(clips, tmp_path, monkeypatch, capsys):
    """Without it, a clip that was checked is checked again."""
    given = ["--nWorkers", "1", "--output", f"{tmp_path}/list.txt"]
    given += [f"--{kind}_dir={clips}/{kind}" for kind in ("mp4", "wav", "txt")]
    checked = makeFileList.check_job
    for resume, kept in (([], []), (["--resume"], ["3"])):
        rest = iter(range(3))

        def interrupted(*job, rest=rest):
            if next(rest, None) is None:
                raise KeyboardInterrupt
            return checked(*job)

        monkeypatch.setattr(makeFileList, "check_job", interrupted)
        assert makeFileList.main(given) == 130
        monkeypatch.setattr(makeFileList, "check_job", checked)
        capsys.readouterr()
        assert makeFileList.main([*given, *resume]) == 0
        assert re.findall(r"kept +(\d+)", capsys.readouterr().out) == kept


def test_flags_of_a_conversion(tmp_path):
    """--nWorkers decides only how many processes convert."""
    for k in range(2):
        make_wav(f"{tmp_path}/src/id{k}/a.wav", 16000, first=1000 * k)
    for number in ("1", "2"):
        flags = [f"--src={tmp_path}/src", f"--dst={tmp_path}/{number}", f"--nWorkers={number}"]
        assert convertAudio.main(flags) == 0
    made = [[(tmp_path / n / f"id{k}/a.wav").read_bytes() for k in range(2)] for n in ("1", "2")]
    assert made[0] == made[1] and made[0][0] != made[0][1]


def test_flags_of_face_tracks(tmp_path, monkeypatch):
    """--detect_every, --min_frames and --min_face decide the tracks; --nWorkers only who makes them."""
    (tmp_path / "src").mkdir()
    seen = []

    def plan(self):
        seen.append((self.rule, self.workers))
        raise UserError("seen")

    monkeypatch.setattr("syncnet.tracks.make_tracks.Run.plan", plan)
    given = ["--src", f"{tmp_path}/src", "--dst", f"{tmp_path}/dst", "--nWorkers", "1"]
    for more in (
        [],
        ["--detect_every", "3"],
        ["--min_frames", "21"],
        ["--min_face", "33"],
        ["--nWorkers", "3"],
    ):
        makeFaceTracks.main([*given, *more])
    rules = [(rule.detect_every, rule.min_frames, rule.min_face, workers) for rule, workers in seen]
    assert rules == [(5, 34, 60, 1), (3, 34, 60, 1), (5, 21, 60, 1), (5, 34, 33, 1), (5, 34, 60, 3)]


SIZES = "--out {} --speakers 2 --val_speakers 3 --clips 2 --test_speakers 2 --utterances 2 --seconds 1"
PLANNED = {"train": 4, "validation": 6, "voices": 4, "seconds": 1.0}


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--speakers 5", {"train": 10}),
        ("--val_speakers 4", {"validation": 8}),
        ("--clips 1", {"train": 2, "validation": 3}),
        ("--test_speakers 3", {"voices": 6}),
        ("--utterances 3", {"voices": 6}),
        ("--seconds 2.6", {"seconds": 2.6}),
        ("--nWorkers 7", {}),
    ],
)
def test_flag_of_the_demo(tmp_path, flag, changes):
    tasks, _ = makeDemoData.plan_corpus(
        makeDemoData.parse_args([*SIZES.format(tmp_path).split(), *flag.split()])
    )
    folders = [task.folder.removeprefix(f"{tmp_path}/") for task in tasks]
    counts = {
        name: folders.count(folder)
        for name, folder in zip(PLANNED, ("dev", "test", "voxceleb1"), strict=False)
    }
    assert counts | {"seconds": tasks[0].utterance.frames / 25} == PLANNED | changes


# --------------------------------------------------------------- figures of scores


@pytest.fixture
def scores(tmp_path) -> Path:
    """Forty trials of four speakers."""
    draws = np.random.default_rng(0)
    lines = []
    for k in range(40):
        a, b = k % 4, (k // 4 + k * (k % 2)) % 4
        score = draws.normal() + 2 * (a == b)
        lines.append(f"{score:.4f} {int(a == b)} id{a:05d}/v/{k}.wav id{b:05d}/w/{k}.wav\n")
    (tmp_path / "scores.txt").write_text("".join(lines))
    return tmp_path / "scores.txt"


def printed(capsys, *words: object) -> str:
    assert tune([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_flags_of_scores(scores, tmp_path, capsys):
    plain = printed(capsys, scores)
    assert "threshold for FA 1 %" in plain and "interval" not in plain and "Cllr" not in plain
    assert "threshold for FA 7 %" in printed(capsys, scores, "--target_fa", 7)
    assert "95 % interval" in printed(capsys, scores, "--bootstrap", 20)
    assert "minimum Cllr" in printed(capsys, scores, "--llr")
    printed(capsys, scores, "--plot", tmp_path / "det.png")
    assert (tmp_path / "det.png").read_bytes()[:4] == b"\x89PNG"
    other = tmp_path / "other.txt"
    other.write_text(scores.read_text())
    several = printed(capsys, scores, "--compare", other, "--bootstrap", 20)
    assert several == printed(capsys, scores, other, "--bootstrap", 20) and "paired draws" in several


def test_flags_of_a_calibration(scores, tmp_path, capsys):
    """The files are written where the flags say, else beside the scores."""
    (tmp_path / "dev").mkdir()
    development = (tmp_path / "dev/scores.txt").write_text(scores.read_text()) and tmp_path / "dev/scores.txt"
    printed(capsys, scores, "--calibrate", development)
    assert (tmp_path / "scores_llr.txt").exists() and (tmp_path / "dev/cal.json").exists()
    elsewhere = ("--llr_output", tmp_path / "x.txt", "--calibration", tmp_path / "x.json")
    printed(capsys, scores, "--calibrate", development, *elsewhere)
    assert (tmp_path / "x.txt").read_text() == (tmp_path / "scores_llr.txt").read_text()
    assert (tmp_path / "x.json").read_text() == (tmp_path / "dev/cal.json").read_text()


def test_flags_of_a_split(tmp_path, capsys):
    """--dev_fraction is the share of the speakers, --seed draws others."""
    lines = [
        f"{int(a == b)} id{a}/{k}.wav id{b}/{k + 9}.wav\n"
        for a in range(8)
        for b in range(a, 8)
        for k in range(3)
    ]
    (tmp_path / "t.txt").write_text("".join(lines))

    def speakers(*flags: object) -> set[str]:
        printed(capsys, tmp_path / "t.txt", "--split", *flags)
        return set(re.findall(r"id\d", (tmp_path / "t_dev.txt").read_text()))

    plain = speakers()
    assert len(plain) == 4 and len(speakers("--dev_fraction", 0.25)) == 2
    assert len({frozenset(speakers("--seed", seed)) for seed in range(4)}) > 1 and speakers() == plain


# --------------------------------------------------------------- every flag

NAMED = {
    "inferSyncNet embed": {"output": "test_embed_command"},
    "inferSyncNet verify": dict.fromkeys(("a", "b", "threshold"), "test_verify_command_and_thresholds")
    | dict.fromkeys(("calibration", "prior"), "test_verify_with_a_calibration"),
    "inferSyncNet offset": dict.fromkeys(
        ("inputs", "plot", "csv", "write_list", "min_confidence", "max_shift"), "test_offset_command"
    ),
    "inferSyncNet lse": dict.fromkeys(
        ("inputs", "csv", "frames"), "test_the_figures_of_a_track_do_not_depend_on_other_tracks"
    )
    | dict.fromkeys(("protocol", "video_csv", "json"), "test_each_protocol_counts_as_its_script"),
    "inferSyncNet accuracy": {"inputs": "test_the_command", "json": "test_the_command"},
    "inferSyncNet resync": dict.fromkeys(("video", "output"), "test_a_late_picture_moves_the_sound"),
    "inferSyncNet speakers": dict.fromkeys(
        ("video", "output", "rttm", "csv", "min_span", "on", "off"), "test_turns_are_found"
    ),
    "inferSyncNet match": {"list": "test_match"},
    "makeFileList": {"part": "test_parts_of_a_list_in_any_order"},
    "convertAudio": {"part": "test_parts_of_a_conversion_in_any_order"},
    "makeFaceTracks": {
        "src": "test_a_single_video",
        "dst": "test_a_single_video",
        "face_detector": "test_tracks_are_remade_with_another_detector",
        "part": "test_parts_of_face_tracks_in_any_order",
    },
    "makeDemoData": {"out": "test_layout_and_groups", "seed": "test_another_seed_is_another_corpus"},
    "tuneThreshold": {"scores": "test_command", "seed": "test_the_seed_of_the_command_is_used"},
    "inferSyncNet average": dict.fromkeys(("checkpoints", "output"), "test_the_mean_of_checkpoints"),
}


def test_every_flag_is_tested():
    """In a table of this file, or by a test that is named."""
    names = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in TESTS.rglob("test_*.py"))))
    for command in inferSyncNet.COMMANDS:
        named = NAMED.get(f"inferSyncNet {command}", {})
        network = {*network_flags(command), "initial_model"} if command in INPUTS else set()
        making = {*MAKING, "tracks", "face_detector", "nWorkers"} if command in MAKERS else set()
        assert flags_of("inferSyncNet", command) == {*network, *making, *PASSED.get(command, ()), *named}, (
            command
        )
    here = {
        "makeFileList": {"output", "mp4_dir", "wav_dir", "txt_dir", "resume", *LISTED},
        "convertAudio": {"src", "dst", "nWorkers"},
        "makeFaceTracks": {"detect_every", "min_frames", "min_face", "nWorkers"},
        "makeDemoData": {"speakers", "val_speakers", "clips", "test_speakers", "utterances", "seconds", "nWorkers"},
        "tuneThreshold": {"compare", "plot", "bootstrap", "target_fa", "split", "dev_fraction", "calibrate",
                          "llr_output", "calibration", "llr"},
    }  # fmt: skip
    for command in ("makeFileList", "convertAudio", "makeFaceTracks", "makeDemoData", "tuneThreshold"):
        assert flags_of(command) == {*NAMED[command], *here.get(command, ())}, command
    assert {name for named in NAMED.values() for name in named.values()} <= names
