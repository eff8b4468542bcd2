"""Training and testing with hostile and damaged checkpoints, by every way to a checkpoint."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint

from mmvanilla import VanillaNet
from mmvanilla.apis.model import build_model, build_on_meta, load_model
from mmvanilla.apis.runners import build_test_runner, build_train_runner
from mmvanilla.apis.safe_runner import newest_whole_checkpoint
from mmvanilla.checkpoints.reading import use_safe_loaders
from tests.toy_training import ToyClassifier, config_text


class _Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, victim) -> None:
        self.victim = victim

    def __reduce__(self):
        return (os.mkdir, (str(self.victim),))


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    yield path
    assert not path.exists(), "code of the file ran"


@pytest.fixture
def hostile(tmp_path, victim):
    path = tmp_path / "served" / "hostile.pth"
    path.parent.mkdir()
    torch.save(dict(state_dict=dict(w=torch.ones(1)), evil=_Attack(victim)), path)
    return path


@pytest.fixture
def url(hostile, monkeypatch, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(hostile.parent))
    handler.func.log_message = lambda *args: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    yield f"http://127.0.0.1:{server.server_port}/hostile.pth"
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(config_text(tmp_path / "ranks", batch_size=4, epochs=4, norm="BN"))
    return str(path)


def train(config, work_dir, epochs=None, **options):
    cfg_options = dict(options.pop("cfg_options", {}), experiment_name=f"{work_dir.name}{epochs}")
    if epochs is not None:
        cfg_options["train_cfg.max_epochs"] = epochs
    runner = build_train_runner(config, work_dir=str(work_dir), cfg_options=cfg_options, **options)
    runner.train()
    return runner


@MODELS.register_module()
class ToyStudent(ToyClassifier):
    """Loads its teacher in its constructor, as MMDetection's detectors with one do."""

    def __init__(self, teacher_file, **kwargs):
        super().__init__(**kwargs)
        self.teacher = torch.nn.Linear(1, 1)
        load_checkpoint(self.teacher, teacher_file, map_location="cpu")


WAYS = ["load_from", "resume", "auto", "init_cfg", "test", "load_model"]
TEACHER_WAYS = ["teacher, trained", "teacher, tested", "teacher, built", "teacher, on meta"]


@pytest.mark.parametrize("way", [*WAYS, *TEACHER_WAYS])
@pytest.mark.parametrize("by_url", [False, True], ids=["path", "url"])
def test_no_tool_runs_code_by_any_way(config, hostile, url, victim, tmp_path, way, by_url):
    where = url if by_url else str(hostile)
    work_dir = tmp_path / f"{way}{by_url}"
    pretrained = dict(type="Pretrained", checkpoint=where)
    with pytest.raises((ValueError, RuntimeError), match="could run code|no undamaged checkpoint"):
        if way == "load_from":
            train(config, work_dir, cfg_options=dict(load_from=where))
        elif way == "resume":
            train(config, work_dir, resume=where)
        elif way == "auto":
            work_dir.mkdir()
            hostile.rename(work_dir / "epoch_1.pth")
            (work_dir / "last_checkpoint").write_text(str(work_dir / "epoch_1.pth"))
            train(config, work_dir, resume="auto")
        elif way == "init_cfg":
            train(config, work_dir, cfg_options={"model.backbone.init_cfg": pretrained})
        elif way == "test":
            build_test_runner(config, where, work_dir=str(work_dir)).test()
        elif way in TEACHER_WAYS:
            student = {"model.type": "ToyStudent", "model.teacher_file": where}
            if way == "teacher, trained":
                train(config, work_dir, cfg_options=student)
            elif way == "teacher, tested":
                build_test_runner(config, where, work_dir=str(work_dir), cfg_options=student)
            else:
                cfg = Config.fromfile(config)
                cfg.merge_from_dict(student)
                (build_model if way == "teacher, built" else build_on_meta)(cfg)
        else:
            load_model(Config.fromfile(config), where)


def test_a_backbone_of_ours_alone_is_not_ours_to_change(hostile, victim):
    """By mmengine's own means its loader decides; in a block of ours it is refused."""
    backbone = VanillaNet(
        dict(dims=(8, 16), strides=(2,)),
        init_cfg=dict(type="Pretrained", checkpoint=str(hostile)),
    )
    use_safe_loaders()
    with pytest.raises(ValueError, match="could run code"):
        backbone.init_weights()


class TestResume:
    def test_what_training_saved_comes_back_as_with_mmengine(self, config, tmp_path):
        train(config, tmp_path / "run", epochs=2)
        path = tmp_path / "run" / "epoch_2.pth"
        trusted = torch.load(path, weights_only=False)
        runner = train(config, tmp_path / "run", epochs=2, resume=str(path))
        assert (runner.epoch, runner.iter) == (2, 4)
        histories = trusted["message_hub"]["log_scalars"]
        assert histories
        for key, history in histories.items():
            ours = runner.message_hub.log_scalars[key]
            assert isinstance(ours, HistoryBuffer)
            for left, right in zip(ours.data, history.data, strict=True):
                assert left.tolist() == right.tolist() and left.dtype == right.dtype
        for key, tensor in trusted["state_dict"].items():
            state = runner.hooks[-1]  # the raw weights are the EMA's after the swap
            assert state is not None and torch.isfinite(tensor.double()).all(), key

    def test_the_text_of_a_config_in_meta_is_not_executed(self, config, tmp_path, victim):
        train(config, tmp_path / "run", epochs=1)
        path = tmp_path / "run" / "epoch_1.pth"
        saved = torch.load(path, weights_only=False)
        for text in (
            f"import os\nos.mkdir({str(victim)!r})\n",
            f"gpu_ids = __import__('os').mkdir({str(victim)!r})",
            "gpu_ids = [0]\n" + f"x = open({str(victim)!r}, 'w')",
            "not python (",
            7,
        ):
            saved["meta"]["config"] = text
            torch.save(saved, path)
            runner = train(config, tmp_path / "run", epochs=2, resume=str(path))
            assert runner.epoch == 2

    def test_another_number_of_gpus_is_still_noticed(self, config, tmp_path):
        train(config, tmp_path / "run", epochs=1)
        path = tmp_path / "run" / "epoch_1.pth"
        saved = torch.load(path, weights_only=False)
        saved["meta"]["config"] = "x = 1\ngpu_ids = [0, 1]\n"
        torch.save(saved, path)
        with pytest.raises(RuntimeError, match="Number of GPUs"):
            train(config, tmp_path / "run", epochs=2, resume=str(path))

    def test_weights_alone_are_no_training_run(self, config, tmp_path):
        path = tmp_path / "weights.pth"
        torch.save(dict(state_dict={}), path)
        with pytest.raises(ValueError, match=r"weights\.pth holds weights, but not the state"):
            train(config, tmp_path / "run", resume=str(path))

    def test_of_a_truncated_newest_checkpoint_the_one_before_is_taken(
        self, config, tmp_path, capfd
    ):
        whole = train(config, tmp_path / "whole", epochs=4).model.state_dict()
        train(config, tmp_path / "run", epochs=3)
        newest = tmp_path / "run" / "epoch_3.pth"
        newest.write_bytes(newest.read_bytes()[:-2000])
        resumed = train(config, tmp_path / "run", epochs=4, resume="auto")
        output = capfd.readouterr()
        assert "skipping a damaged checkpoint" in output.out + output.err
        assert str(newest) in output.out + output.err
        assert resumed.epoch == 4
        assert resumed.model.state_dict().keys() == whole.keys()
        for key, tensor in resumed.model.state_dict().items():
            assert torch.equal(tensor, whole[key]), key

    def test_without_any_whole_checkpoint_it_does_not_begin_anew_silently(self, config, tmp_path):
        train(config, tmp_path / "run", epochs=1)
        (tmp_path / "run" / "epoch_1.pth").write_bytes(b"")
        with pytest.raises(RuntimeError, match="no undamaged checkpoint to resume from"):
            train(config, tmp_path / "run", epochs=2, resume="auto")


def _write(folder, name, when, whole=True):
    path = folder / name
    torch.save(dict(w=torch.ones(9)), path)
    if not whole:
        path.write_bytes(path.read_bytes()[:100])
    os.utime(path, (when, when))
    return path


class TestNewestWholeCheckpoint:
    @pytest.mark.parametrize("note", ["", "\xff", "epoch_3.pth", "/elsewhere/epoch_3.pth"])
    def test_a_half_written_note_does_not_matter(self, tmp_path, note):
        _write(tmp_path, "epoch_2.pth", 100)
        newest = _write(tmp_path, "epoch_3.pth", 200)
        (tmp_path / "last_checkpoint").write_bytes(note.encode("latin1"))
        assert newest_whole_checkpoint(tmp_path) == (newest, [])

    def test_a_checkpoint_of_an_older_run_is_not_taken(self, tmp_path):
        _write(tmp_path, "epoch_12.pth", 100)
        newest = _write(tmp_path, "epoch_3.pth", 200)
        (tmp_path / "last_checkpoint").write_text(str(newest))
        assert newest_whole_checkpoint(tmp_path) == (newest, [])

    def test_killed_between_the_checkpoint_and_its_note(self, tmp_path):
        before = _write(tmp_path, "epoch_3.pth", 100)
        note = tmp_path / "last_checkpoint"
        note.write_text(str(before))
        os.utime(note, (101, 101))
        newest = _write(tmp_path, "epoch_4.pth", 200)
        assert newest_whole_checkpoint(tmp_path) == (newest, [])
        _write(tmp_path, "epoch_4.pth", 200, whole=False)
        found, damaged = newest_whole_checkpoint(tmp_path)
        assert found == before and "epoch_4.pth" in damaged[0] and len(damaged) == 1

    def test_an_empty_folder(self, tmp_path):
        assert newest_whole_checkpoint(tmp_path) == (None, [])


def test_checkpoints_of_training_are_written_whole(config, tmp_path, monkeypatch):
    """A kill in the middle of the writing leaves no file of that name."""
    save = torch.save

    def die(checkpoint, file):
        if "optimizer" not in checkpoint:
            return save(checkpoint, file)
        file.write(b"PK half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", epochs=1)
    assert not list((tmp_path / "run").glob("*.pth"))
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_the_runner_is_still_one_of_mmengine(config, tmp_path):
    runner = train(config, tmp_path / "run", epochs=1)
    assert isinstance(runner, Runner)
    assert type(runner).__name__ == "SafeRunner"
