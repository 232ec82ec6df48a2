"""Lightning's advice in our words: what a recipe or a command line says, and not what a program would.

Lightning's messages speak to somebody who writes the module. Whoever trains a module of genzoo's meets those below,
and is told which option to give instead.
"""

import re

from genzoo.errors import did_you_mean

NEITHER = "the model steps its optimisers itself"
MONITOR = "{0} monitors {given}, which nothing logs"
#: what Lightning says, and what we say; `given` is suggested for from among the `known`, where there are such
WORDS = {
    r"Automatic gradient clipping is not supported for manual optimization": (
        f"{NEITHER}: give --model.gradient_clip_norm in place of --trainer.gradient_clip_val"
    ),
    r"Automatic gradient accumulation is not supported for manual optimization": (
        f"{NEITHER}: give --model.micro_batches in place of --trainer.accumulate_grad_batches"
    ),
    r"The current optimizer, (\w+), does not allow for gradient clipping": (
        "a fused {0} cannot have its gradients clipped in mixed precision: leave out its `fused: true`, or"
        " --trainer.gradient_clip_val"
    ),
    r"`val_check_interval` \((.*?)\) must be less than or equal to the number of the training batches \((.*?)\)": (
        "--trainer.val_check_interval={0}, but an epoch has {1} batches: give at most {1}; or"
        " --trainer.check_val_every_n_epoch=null, and it counts through the epochs"
    ),
    r"`(ModelCheckpoint)\(monitor='(?P<given>.*?)'\)` could not find .* metrics: \[(?P<known>.*?)\]": MONITOR,
    r"(Early stopping) conditioned on metric `(?P<given>.*?)` .* any of the following:(?P<known>.*)": MONITOR,
    r"(ReduceLROnPlateau) conditioned on metric (?P<given>\S+) .* metrics are: \[(?P<known>.*?)\]": MONITOR,
    r"invalid accelerator name: `accelerator='(?P<given>.*?)'`. Available names are: (?P<known>.*)\.": (
        "no accelerator is called {given}, but {known}"
    ),
    r"invalid strategy name: `strategy='(?P<given>.*?)'`": (
        "no strategy is called {given}; there are auto, ddp, fsdp and more (Lightning's documentation lists them)"
    ),
    r"`(\w+)Accelerator` can not run on your system .*: \[(.*)\]": (
        "there is no {0} on this machine: give --trainer.accelerator as auto, or one of {1}"
    ),
    r"`enable_checkpointing=False` but found `ModelCheckpoint`": (
        "there is a ModelCheckpoint among the callbacks: leave it out, or --trainer.enable_checkpointing=false"
    ),
    r"more than one stateful callback of type `(\w+)`": (
        "there are two {0} among the callbacks: the recipe has one, whose arguments --trainer.callbacks.<argument>"
        " changes; or clear them by --trainer.callbacks=null"
    ),
}


def in_our_words(error: Exception) -> str | None:
    """What to do about an error of Lightning's that we know, in a line; None of any other."""
    said = " ".join(str(error).split())
    for pattern, words in WORDS.items():
        if found := re.search(pattern, said):
            names = found.groupdict()
            known = re.findall(r"[^\s,'`]+", names.get("known", ""))
            return words.format(*found.groups(), **names) + did_you_mean(names.get("given", ""), known)
    return None
