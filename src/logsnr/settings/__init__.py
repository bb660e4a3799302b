"""Everything that decides a training run, a sampling or an evaluation, as frozen dataclasses that import no torch.

The command line is made from these classes: the text under each field is its help, and a value that breaks a rule
stops in `__post_init__`, before anything is loaded. Where one choice decides which other settings mean anything (a
loss, a weighting, a schedule, a condition, a kind of data), each alternative is a class of its own, told by its `name`
(`logsnr.settings.choice`): a setting that would do nothing doesn't exist.
"""
