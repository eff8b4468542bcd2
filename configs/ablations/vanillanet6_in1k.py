# The paper's ablations on VanillaNet-6 with the authors' ImageNet recipe.
# A row is a line of options, which this lists:
#   mmvanilla run_ablations ablations/vanillanet6_in1k.py --rows
#   mmvanilla train ablations/vanillanet6_in1k.py --cfg-options model.backbone.act_num=1
_base_ = ["../imagenet/vanillanet6_in1k.py", "../_base_/ablation_rows.py"]

# Alone in its list, so that `custom_hooks=[]` switches nothing off but it.
custom_hooks = [_base_.custom_hooks[0]]
default_hooks = dict(ema=_base_.custom_hooks[1])
