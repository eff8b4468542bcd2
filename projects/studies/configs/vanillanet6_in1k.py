# The paper's ablations on VanillaNet-6 with the authors' ImageNet recipe.
# A row is a line of options, which this lists:
#   python -m projects.studies.compare_trainings CONFIG --rows
_base_ = ["../../../configs/imagenet/vanillanet6_in1k.py", "_base_/ablation_rows.py"]

# Alone in its list, so that `custom_hooks=[]` switches nothing off but it.
custom_hooks = [_base_.custom_hooks[0]]
default_hooks = dict(ema=_base_.custom_hooks[1])
