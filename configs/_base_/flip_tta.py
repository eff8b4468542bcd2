# --tta of the classifiers: each image also flipped, and the mean of both scores. A config with a
# test pipeline puts `flipped_too` in the place of the last step, by `_base_.pop`.
tta_model = dict(type="AverageClsScoreTTA")
flipped_too = dict(
    type="TestTimeAug",
    transforms=[
        [dict(type="RandomFlip", prob=prob) for prob in (0.0, 1.0)],
        [dict(type="PackInputs")],
    ],
)
