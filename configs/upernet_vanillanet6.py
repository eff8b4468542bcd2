# UPerNet with VanillaNet-6 on ADE20K; the schedule is ours, not run in full.
# Its levels are as wide as VanillaNet-13's, so that nothing else of upernet_vanillanet.py changes.
_base_ = ["upernet_vanillanet.py"]

checkpoint_file = "vanillanet://6"
model = dict(backbone=dict(arch="6", init_cfg=dict(checkpoint=checkpoint_file)))
# Four blocks: the rate is the one at which the authors train this variant on ImageNet.
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
