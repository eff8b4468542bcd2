# The paper's ablations of a VanillaNet, as rows of a table: the options of each. Any tool trains a
# row with them, as --cfg-options. `custom_hooks` of the config may have the DeepTrainingHook only,
# which fails without pairs of convolutions, since nothing has a λ then.
ablations = dict(
    full=dict(),
    no_deep_training={
        "model.backbone.deep_training": False,
        "model.head.deep_training": False,
        "custom_hooks": [],
    },
    no_series_activation={"model.backbone.series_activation": False},
    plain={
        "model.backbone.series_activation": False,
        "model.backbone.deep_training": False,
        "model.head.deep_training": False,
        "custom_hooks": [],
    },
    n0={"model.backbone.act_num": 0},
    n1={"model.backbone.act_num": 1},
    n2={"model.backbone.act_num": 2},
    n4={"model.backbone.act_num": 4},
    shortcut_before_act={
        "model.backbone.type": "EarlyShortcutVanillaNet",
        "custom_imports.imports": ["mmvanilla", "mmvanilla.cls_head", "projects.studies.shortcuts"],
    },
    shortcut_after_act={
        "model.backbone.type": "LateShortcutVanillaNet",
        "custom_imports.imports": ["mmvanilla", "mmvanilla.cls_head", "projects.studies.shortcuts"],
    },
)
