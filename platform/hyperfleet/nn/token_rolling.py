"""Token rolling: All-in-One's exchange between frames, without parameters.

(All in One, https://arxiv.org/abs/2203.07303, section 3.2.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

ROLLED_FRACTION = 8


def roll_tokens(tokens: Float[Tensor, "clip frame token dim"]) -> Float[Tensor, "clip frame token dim"]:
    """Shift an eighth of each frame's image tokens to the next frame and an eighth to the previous one.

    Token 0, the frame's class token, stays. Of the other tokens the first f = floor(tokens / 8) of
    frame t come from frame t-1 and the last f from frame t+1, both circular.
    """
    num_tokens = tokens.shape[2]
    fold = num_tokens // ROLLED_FRACTION
    if fold == 0 or tokens.shape[1] == 1:
        return tokens
    return torch.cat(
        [
            tokens[:, :, :1],
            tokens[:, :, 1 : 1 + fold].roll(1, dims=1),
            tokens[:, :, 1 + fold : num_tokens - fold],
            tokens[:, :, num_tokens - fold :].roll(-1, dims=1),
        ],
        dim=2,
    )
