"""Every command of README.md and docs/ is typed as it is printed, in a folder with a small demo corpus.

Commands that cannot run here are only parsed: NOT_RUN says why. The networks are tiny ones, so that what is tested
is the command and not what was learned.
"""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tinyModel
import torch
from clipMaker import make_clip, make_sound, noise
from scipy.io import wavfile
from videoMaker import face, make_video

import makeDemoData
import makeFileList
import models.SyncNetModelFBank
import trainSyncNet
from SyncNetDist import SyncNet

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "CONTRIBUTING.md"]
NOT_RUN = {  # how a command begins, or what it has in it -> why it is not run
    "data/exp01": "trains for days on VoxCeleb2",
    "voxsrc2020_baseline.model": "needs the published weights and VoxCeleb1",
    "syncnet_v2.model": "needs the published weights",
    "face_detection_yunet": "needs a file that is downloaded",
    "--save_path data/mine": "trains for hours on somebody's videos",
    "--save_path data/sync": "trains for hours on VoxCeleb2",
    "--save_path data/noisy": "trains for days on VoxCeleb2, with MUSAN and RIRS_NOISES",
}
NOT_PYTHON = {"./demo.sh", "./test.sh", "pip", "wget", "source", "torchrun", "srun", "tensorboard", "ffmpeg"}


def blocks(kind: str) -> list[tuple[str, str]]:
    """The fenced blocks of a kind, each with the name of its page."""
    found = []
    for page in PAGES:
        fences = re.findall(
            r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        found += [(page.name, text) for language, text in fences if language == kind]
    return found


def commands() -> list[tuple[str, str]]:
    """The command lines of all pages, each with the name of its page."""
    found = []
    for page, text in blocks(""):
        for line in text.splitlines():
            words = line.split()
            if words and (words[0] == "python" or words[0] in NOT_PYTHON):
                found.append((page, line))
    return found


def arguments(line: str) -> tuple[str, list[str]]:
    """The module and the flags of a line `python script.py flags`, or of one that starts such a script."""
    words = shlex.split(line, comments=True)
    script = next(n for n, word in enumerate(words) if word.endswith(".py"))
    return Path(words[script]).stem, words[script + 1 :]


def draw_face(picture: np.ndarray, number: int) -> None:
    picture[4:116, 20 + number % 5 : 132 + number % 5] = face(112)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder in which the commands can be typed."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(models.SyncNetModelFBank, "SyncNetModel", tinyModel.SyncNetModel)
        sizes = "--speakers 10 --val_speakers 10 --test_speakers 4 --utterances 3 --seconds 1.4 --nWorkers 1"
        assert makeDemoData.main(["--out", "data/demo", *sizes.split()]) == 0
        for part in ("dev", "test"):
            where = [f"--{kind}_dir=data/demo/{part}/{kind}" for kind in ("mp4", "wav", "txt")]
            assert makeFileList.main(["--output", f"data/demo/{part}.txt", *where, "--nWorkers", "1"]) == 0
        network = SyncNet(maxFrames=20, temporal_stride=4, device="cpu")
        Path("data/demo/exp/model").mkdir(parents=True)
        network.saveParameters("data/demo/exp/model/model000000004.model")

        shutil.copytree("data/demo/dev", "VOX2_PATH/dev")
        for wav in Path("VOX2_PATH/dev/wav").rglob("*.wav"):
            make_sound(str(wav).replace("/wav/", "/aac/").replace(".wav", ".m4a"), wavfile.read(wav)[1])
        make_sound("my_noises/rain.flac", noise(1.0, 44100), 44100, kind="flac", codec="flac")
        for part in ("train", "val"):
            make_clip(f"my_clips/{part}/a.mp4", 40, sound=noise(1.6))
            make_video(
                f"my_videos/{part}/{part}.mp4",
                np.arange(48) / 30,
                size=(160, 120),
                flash=None,
                draw=draw_face,
            )
        yield folder


def python_commands() -> list:
    lines = [line for _, line in commands() if line.startswith("python ")]
    return [pytest.param(line, id=" ".join(line.split()[1:3]) + f" {n}") for n, line in enumerate(lines)]


@pytest.mark.parametrize("line", python_commands())
def test_command(line, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    name, flags = arguments(line)
    module = importlib.import_module(name)
    if any(part in line for part in NOT_RUN):
        module.parse_args(flags)
        return
    monkeypatch.setattr(models.SyncNetModelFBank, "SyncNetModel", tinyModel.SyncNetModel)
    status, said = module.main(flags), capsys.readouterr().err
    # The network here has learned nothing, and may find no offset to list, or nothing to calibrate.
    assert (
        status == 0
        or ("--write_list" in line and "no clip is left" in said)
        or ("--calibrate" in line and ("do not score higher" in said or "separated without error" in said))
    ), said


def test_commands_for_several_machines_have_flags_that_exist():
    lines = [line for _, line in commands() if "torchrun " in line]
    lines += re.findall("torchrun .*", trainSyncNet.__doc__)
    assert len(lines) == 4
    for line in lines:
        name, flags = arguments(line)
        args = importlib.import_module(name).parse_args(flags)
        processes = int(re.search(r"--nproc_per_node (\d+)", line)[1]) * (2 if "--nnodes 2" in line else 1)
        assert args.nBatchSize % processes == 0


@pytest.mark.parametrize("page, text", blocks("python"))
def test_python_example(page, text, desk, monkeypatch):
    if "..." in text or "my_" in text:
        compile(text, page, "exec")  # a piece to fill in
        return
    monkeypatch.chdir(desk)
    monkeypatch.setattr(models.SyncNetModelFBank, "SyncNetModel", tinyModel.SyncNetModel)
    torch.manual_seed(0)
    exec(compile(text, page, "exec"), {})


def test_each_reason_not_to_run_applies_to_a_command():
    lines = [line for _, line in commands()]
    assert all(any(part in line for line in lines) for part in NOT_RUN)


def anchors(page: Path) -> set[str]:
    """What `#...` can name in a page: its headings, as GitHub writes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_have_targets():
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md"]:
        for path, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            if path.startswith("http"):
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"
