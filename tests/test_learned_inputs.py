"""Weights and options of learned depth and masks: found where a user has them, or refused with what
helps."""

import json
import socket
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import background_points
import foreground_points
from models.clip.images import write_images
from models.depth.options import LearnedOptions, check_learned_options
from models.learned.pretrained import open_pretrained
from models.learned.registry import DEPTH_MODELS, open_depth_model, open_mask_model
from models.learned.sam2 import SAM2
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import load_tracks


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path, monkeypatch):
    """No folder of submodules/ and no network, which the tests must not depend on."""
    monkeypatch.setattr("models.learned.pretrained.SUBMODULES", tmp_path / "submodules")

    def refuse(*_: object) -> None:
        raise OSError("a test went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_missing_weights_are_refused_with_the_commands_that_help(tmp_path):
    for source in (*DEPTH_MODELS.values(), SAM2):
        for place in (None, "nobody/nothing"):
            with pytest.raises(
                InputError,
                match=rf"--allow_download, or run: hf download \S+ --local-dir submodules/{source.name}",
            ):
                open_pretrained(source, place, False)
        with pytest.raises(InputError, match=r"holds no config\.json .* run: hf download"):
            open_pretrained(source, str(tmp_path), False)


def test_weights_in_submodules_are_found_by_themselves(checkpoints, tmp_path):
    (tmp_path / "submodules").mkdir()
    (tmp_path / "submodules" / "depth_pro").symlink_to(checkpoints["depth_pro"])
    assert open_depth_model("depth_pro")(picture(20, 30)).shape == (20, 30)


def test_another_models_weights_are_refused(checkpoints):
    for name, other in (("depth_anything", "depth_pro"), ("depth_pro", "sam2")):
        with pytest.raises(
            InputError, match=rf"is a checkpoint of '\w+', but --depth {name} takes one of '{name}'"
        ):
            open_depth_model(name, str(checkpoints[other]))
    with pytest.raises(InputError, match=r"--masks sam2 takes one of 'sam2_video'"):
        open_mask_model("sam2", str(checkpoints["metric"]))


def test_damaged_or_incomplete_weights_are_refused(checkpoints, tmp_path):
    from safetensors.torch import load_file, save_file

    source = checkpoints["depth_pro"]
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    weights = tmp_path / "model.safetensors"

    def refused(says: str) -> None:
        with pytest.raises(InputError, match=says):
            open_depth_model("depth_pro", str(tmp_path))

    refused("cannot be read as a checkpoint")
    torch.save(load_file(source / "model.safetensors"), tmp_path / "pytorch_model.bin")
    refused("cannot be read as a checkpoint")  # a pickle is not even opened
    weights.write_bytes((source / "model.safetensors").read_bytes()[:5000])
    refused("cannot be read as a checkpoint")
    some = load_file(source / "model.safetensors")
    some.pop("head.layers.0.weight")
    save_file(some, weights, metadata={"format": "pt"})
    refused(r"lacks 1 weights \(head\.layers\.0\.weight\)")
    (tmp_path / "config.json").write_text("{")
    refused("cannot be read as a checkpoint")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "depth_pro", "patch_size": "x"})
    )
    refused("cannot be read as a checkpoint")


def test_no_network_is_said_in_one_sentence(monkeypatch):
    from transformers import DepthProConfig

    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect")

    monkeypatch.setattr(DepthProConfig, "get_config_dict", offline)
    with pytest.raises(
        InputError, match=r"cannot be downloaded .*no network.* run: hf download apple/DepthPro-hf"
    ):
        open_depth_model("depth_pro", allow_download=True)


def test_a_missing_or_old_package_is_refused_with_the_command(monkeypatch):
    import transformers

    monkeypatch.delattr(transformers, "Sam2VideoModel", raising=False)
    monkeypatch.setitem(transformers.__dict__, "_class_to_module", {})
    with pytest.raises(
        InputError,
        match=r"needs a newer package 'transformers'.*pip install -r requirements-learned",
    ):
        open_mask_model("sam2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        InputError, match=r"--masks sam2 needs the package 'transformers'; run: pip install -r"
    ):
        open_mask_model("sam2")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"depth": "depth_pro", "depth_path": Path("x")},
            "--depth depth_pro and --depth_path x exclude each other",
        ),
        ({"depth": "midas"}, "'midas' is not known; choose one of depth_anything, depth_pro"),
        ({"depth_checkpoint": "x"}, "of no use without --depth"),
        ({"masks": "sam1"}, "'sam1' is not known; choose one of sam2"),
        ({"masks_checkpoint": "x"}, "of no use without --masks"),
        ({"masks": "sam2"}, "--masks sam2 and --mask_path m exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        check_learned_options(LearnedOptions(**options), Path("m"))


@pytest.mark.slow
def test_the_scripts_take_learned_depth_and_masks(checkpoints, tmp_path, monkeypatch, capfd):
    room = render_room(RoomOptions(8, 161, 97, num_movers=1, num_tracks=0))
    write_images(tmp_path / "clip" / "frames", room.frames, range(8))

    monkeypatch.chdir(tmp_path)

    def run(script: ModuleType, *flags: object) -> str:
        words = [script.__name__, "--video_path", "clip/frames", *flags]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        script.main()
        return "".join(capfd.readouterr())

    flags = ["--depth", "depth_anything", "--depth_checkpoint", checkpoints["depth_anything"]]
    flags += ["--masks", "sam2", "--masks_checkpoint", checkpoints["sam2"]]
    told = run(background_points, *flags)
    assert "learned masks:" in told and "maps of " in told
    results = tmp_path / "results" / "clip"
    assert len(list((results / "depth").glob("*.npy"))) == 8
    assert "background_points: reused" in run(background_points, *flags)
    for t in range(8):  # random weights tell nothing; what a trained model would
        np.save(results / "depth" / f"{t:05d}.npy", (2 / room.depth[t] + 0.1).astype(np.float16))
    told = run(foreground_points)
    assert "aligned to" in told and "not used" not in told
    (results / "depth" / "00000.npy").touch()
    assert "foreground_points: reused" in run(foreground_points)
    assert load_tracks(results / "foreground_points.pt").num_tracks > 0
