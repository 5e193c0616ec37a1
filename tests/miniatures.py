"""Tables of settings with which a network learns in seconds, and next to nothing."""

UNET = """
[unet]
mm = 3.0
size = 64
width = 0.0625
repeats = [1, 1, 1]
epochs = 1
slices_per_case = 2
batch = 4
learning_rate = 1e-3
warmup_epochs = 0.5
patience = 2
seed = 3
"""
#: Lacks `epochs` and `learning_rate`, which follow it.
DETECTION = """
[detection]
augmentation = "none"
mixup = 0.0
scales = [1.0]
batch = 4
weight_decay = 5e-4
warmup_epochs = 1.0
drop_epochs = []
clip_norm = 10.0
average = 0.5
patience = 3
seed = 3
"""
