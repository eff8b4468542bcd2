"""What every room needs: the command line, what is installed, where things are."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Refuse ``mmengine.hub.get_model("mmvanilla::…")``, which calls this of each package.

    mmengine would build the model in a scope named mmvanilla. Its parts are in the scopes of three
    toolboxes, where they would not be found.

    Raises:
        RuntimeError: Always; it names what works instead.
    """
    raise RuntimeError(
        "mmengine.hub.get_model cannot build models of mmvanilla::, since it looks for all their "
        "parts in a scope of that name; call mmpretrain.get_model('vanillanet-9_in1k') for a "
        "classifier, or mmdet.apis.init_detector or mmseg.apis.init_model with "
        "mmvanilla.config_path('maskrcnn_vanillanet.py')"
    )
