"""Optimizer and learning rate schedule of All-in-One: AdamW, linear warm-up, polynomial decay of power 1."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

BETAS = (0.9, 0.98)


def adamw(parameters: Iterable[tuple[nn.Parameter, float, str]], *, weight_decay: float) -> AdamW:
    """AdamW over parameters with learning rate and part; biases, norms and other vectors are not decayed.

    Every parameter group has the key `part`: gradients are clipped by part.
    """
    groups: dict[tuple[float, str, bool], list[nn.Parameter]] = {}
    for parameter, learning_rate, part in parameters:
        groups.setdefault((learning_rate, part, parameter.ndim >= 2), []).append(parameter)
    return AdamW(
        [
            {
                "params": members,
                "lr": learning_rate,
                "part": part,
                "weight_decay": weight_decay if is_decayed else 0.0,
            }
            for (learning_rate, part, is_decayed), members in groups.items()
        ],
        betas=BETAS,
        # One kernel per step: a generator's last layer is large, and each pass over it is costly.
        fused=True,
    )


def warm_up_then_decay(
    optimiser: AdamW, *, num_steps: int, warm_up_fraction: float, rate_left: float = 0.0, first_step: int = 0
) -> LambdaLR:
    """Rise linearly for `warm_up_fraction` of `num_steps`, then fall linearly to `rate_left` of the peak.

    `first_step` is the step from which a resumed run continues.
    """
    warm_up = max(1, round(warm_up_fraction * num_steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        to_go = max(0.0, (num_steps - step) / max(1, num_steps - warm_up))
        return rate_left + (1 - rate_left) * to_go

    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimiser, factor, last_epoch=first_step - 1)


def optimiser_tensors(optimiser: AdamW, names: list[str]) -> dict[str, Tensor]:
    """Return the optimizer's state as named tensors; `names` are those of its parameters in group order."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, parameter in zip(names, parameters, strict=True)
        for key, value in optimiser.state[parameter].items()
    }


def restore_optimiser(optimiser: AdamW, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Restore the state that `optimiser_tensors` returned."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        state = {
            key: tensors[f"{name}.{key}"]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{name}.{key}" in tensors
        }
        optimiser.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
        }


def parameter_names(model: nn.Module, optimiser: AdamW) -> list[str]:
    """Return the names of the optimizer's parameters in group order."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [name_of[id(p)] for group in optimiser.param_groups for p in group["params"]]
