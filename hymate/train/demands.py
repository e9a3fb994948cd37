"""Which keys of a training go together: what one of them needs of another, and what a federation has not."""

from __future__ import annotations

from hymate.config import FinetuneConfig, PretrainConfig, TaskConfig
from hymate.model.config import AnyModelConfig


def demand_parts(
    model: AnyModelConfig, task: TaskConfig, pretrain: PretrainConfig, finetune: FinetuneConfig
) -> None:
    """`ValueError` where a key asks for a part that the model or the task does not have."""
    if pretrain.event_rate and not getattr(model, "event_head", False):
        raise ValueError("pretrain.event_rate trains a head of its own: set model.event_head to true")
    if pretrain.rounds and pretrain.min_input_hours >= task.lookback_hours:
        raise ValueError(
            f"pretrain.min_input_hours {pretrain.min_input_hours:g} leaves nothing to forecast of "
            f"task.lookback_hours {task.lookback_hours:g}: lower it, or set pretrain.rounds to 0"
        )
    if finetune.warm_epochs and model.name != "hymate":
        raise ValueError(f"finetune.warm_epochs is for model hymate, and model is {model.name}")
    if finetune.soft_labels is not None and task.kind != "binary":
        raise ValueError(f"finetune.soft_labels is for task.kind binary, and kind is {task.kind}")
    if finetune.distillation is not None:
        if not getattr(model, "d_summary", 0):
            raise ValueError("finetune.distillation teaches the summary branch: set model.d_summary")
        if task.kind != "binary":
            raise ValueError(f"finetune.distillation is for task.kind binary, and kind is {task.kind}")
    if finetune.auxiliary is not None:
        learned = sorted(set(finetune.auxiliary.tasks) & set(task.label_sets))
        if learned:
            raise ValueError(f"finetune.auxiliary names '{learned[0]}', which is the task itself")


def refuse_in_federation(pretrain: PretrainConfig, finetune: FinetuneConfig) -> None:
    """`ValueError` for what only a training without a federation knows.

    A site's round begins with the study's weights and ends with its own: a mean over steps, a stage before
    the rounds, heads that the study's weights lack, labels and teachers of a site's own have no place there.
    """
    asked = {
        "pretrain.ema": pretrain.ema,
        "finetune.ema": finetune.ema,
        "finetune.warm_epochs": finetune.warm_epochs,
        "finetune.auxiliary": finetune.auxiliary,
        "finetune.soft_labels": finetune.soft_labels,
        "finetune.distillation": finetune.distillation,
    }
    for key, value in asked.items():
        if value:
            raise ValueError(f"{key} is for `hymate train`; leave it out of a study")
