import pytest
from mmengine.config import Config

from mmvanilla.apis import speed
from mmvanilla.apis.speed import set_channels_last, set_compiled
from mmvanilla.engine.channels_last import ChannelsLastHook

HOOK = dict(type="ChannelsLastHook")
OTHER = dict(type="EMAHook")


def config(**content):
    return Config(dict(model=dict(type="X"), **content))


@pytest.mark.parametrize(
    "content",
    [
        dict(default_hooks=dict(layout=HOOK)),
        dict(custom_hooks=[OTHER, HOOK]),
        dict(custom_hooks=[dict(type="mmengine.ChannelsLastHook")]),
        dict(custom_hooks=(dict(type=ChannelsLastHook),)),
        dict(custom_hooks=[ChannelsLastHook()]),
    ],
    ids=["default", "custom", "scope", "class", "object"],
)
def test_the_hook_is_found_however_it_is_given(content):
    cfg = config(**content)
    for channels_last in (None, True):
        set_channels_last(cfg, channels_last)
        assert len(cfg.get("custom_hooks", ())) == len(content.get("custom_hooks", ()))
        assert cfg.get("default_hooks") == content.get("default_hooks")
    set_channels_last(cfg, False)
    assert not cfg.get("default_hooks")
    assert cfg.get("custom_hooks", []) == ([OTHER] if content.get("custom_hooks", [])[:-1] else [])


@pytest.mark.parametrize("content", [{}, dict(default_hooks=None), dict(custom_hooks=[OTHER])])
def test_the_hook_is_added_where_there_is_none(content):
    cfg = config(**content)
    set_channels_last(cfg, None)
    set_channels_last(cfg, False)
    assert cfg.get("default_hooks") is None
    set_channels_last(cfg, True)
    assert cfg.default_hooks == dict(channels_last=HOOK)
    assert cfg.get("custom_hooks") == content.get("custom_hooks")


@pytest.mark.parametrize(
    ("before", "switch", "after"),
    [
        (None, None, None),
        (None, True, True),
        (None, False, False),
        (True, False, False),
        (True, None, True),
        (dict(backend="eager"), True, dict(backend="eager")),
        (dict(backend="eager"), False, False),
    ],
)
def test_compile(before, switch, after):
    cfg = config() if before is None else config(compile=before)
    set_compiled(cfg, switch)
    assert cfg.get("compile") == after


def test_without_a_compiler_nothing_is_built(monkeypatch):
    monkeypatch.setattr(speed, "get_device", lambda: "cpu")
    monkeypatch.setattr(speed.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    for cfg, switch in ((config(), True), (config(compile=dict(mode="default")), None)):
        with pytest.raises(RuntimeError, match=r"no g\+\+; install one .*--no-compile"):
            set_compiled(cfg, switch)
    set_compiled(config(compile=dict(backend="eager")), None)
    monkeypatch.setattr(speed, "get_device", lambda: "cuda")
    set_compiled(config(), True)
