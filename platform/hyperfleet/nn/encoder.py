"""All-in-One encoder: DeiT blocks over text and image tokens of every frame, joined by token rolling."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hyperfleet.messages import FEATURE_DIM
from hyperfleet.nn.encoder_config import EncoderConfig
from hyperfleet.nn.token_rolling import roll_tokens
from hyperfleet.seeding import torch_generator

TEXT_TYPE, IMAGE_TYPE = 0, 1
_INIT_STD = 0.02


def first_token_block(
    block: Any, tokens: Float[Tensor, "frame token dim"], attn_mask: Bool[Tensor, "frame 1 1 token"] | None
) -> Float[Tensor, "frame 1 dim"]:
    """Return `block(tokens)[:, :1]` without computing the other tokens' outputs.

    After the last block only the text class token is read. Keys and values are still needed for every
    token, but queries, projection and MLP for only one: a fifth of the block's work. `block` is a timm
    `Block`.
    """
    attention = block.attn
    dim = tokens.shape[-1]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    normed = block.norm1(tokens)
    query = functional.linear(normed[:, :1], weight[:dim], bias[:dim])
    key, value = functional.linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=-1)
    query, key, value = (
        x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
    mixed = mixed.transpose(1, 2).flatten(2)
    first = tokens[:, :1] + block.drop_path1(block.ls1(attention.proj_drop(attention.proj(mixed))))
    output: Tensor = first + block.drop_path2(block.ls2(block.mlp(block.norm2(first))))
    return output


def _without_common_padding(
    token_ids: Int[Tensor, "clip word"], token_mask: Bool[Tensor, "clip word"]
) -> tuple[Int[Tensor, "clip shorter"], Bool[Tensor, "clip shorter"]]:
    """Cut off columns that are padding in every text: no token attends to them, and they cost a third."""
    used = token_mask.any(dim=0).nonzero()
    length = int(used[-1]) + 1 if len(used) else token_mask.shape[1]
    return token_ids[:, :length], token_mask[:, :length]


class AllInOneEncoder(nn.Module):
    """Fuse the frames of a clip with a question into one feature per frame (equations 2-4 of CDC-MMPG).

    Module names follow the released All-in-One checkpoints (`text_embeddings`,
    `token_type_embeddings`, `transformer`), so that their weights load by name; the pooler belongs
    to `DeviceModel`.
    """

    transformer: Any  # timm types its parts as "Tensor or Module"
    inference_patch_order: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        # Imported here: it takes seconds, and the service needs only the generator, without an encoder.
        from timm.models.vision_transformer import VisionTransformer
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertEmbeddings

        super().__init__()
        self.config = config
        self.text_embeddings = BertEmbeddings(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=FEATURE_DIM,
                num_attention_heads=config.num_heads,
                max_position_embeddings=config.text_length,
                hidden_dropout_prob=config.dropout,
            )
        )
        self.token_type_embeddings = nn.Embedding(2, FEATURE_DIM)
        self.transformer = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=FEATURE_DIM,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            pos_drop_rate=config.dropout,
            proj_drop_rate=config.dropout,
            num_classes=0,
            global_pool="",
        )
        # timm has no temporal embedding; it starts at zero, as in All-in-One.
        self.transformer.temporal_embed = nn.Parameter(torch.zeros(1, config.num_frames, FEATURE_DIM))
        for embedding in (
            self.text_embeddings.word_embeddings,
            self.text_embeddings.position_embeddings,
            self.text_embeddings.token_type_embeddings,
            self.token_type_embeddings,
        ):
            nn.init.normal_(embedding.weight, std=_INIT_STD)
        order = torch.stack(
            [
                torch.randperm(config.num_patches, generator=torch_generator(0, "patch order", frame))
                for frame in range(config.num_frames)
            ]
        )
        self.register_buffer("inference_patch_order", order, persistent=False)

    def _image_tokens(
        self, frames: Float[Tensor, "clip frame 3 height width"]
    ) -> Float[Tensor, "clip frame token dim"]:
        num_clips, num_frames = frames.shape[:2]
        vit = self.transformer
        patches = vit.patch_embed(frames.flatten(0, 1)) + vit.pos_embed[:, 1:]
        patches = patches.unflatten(0, (num_clips, num_frames)) + vit.temporal_embed[:, :num_frames, None]
        if self.config.shuffle_patches:
            if self.training:
                shape = (num_clips, num_frames, self.config.num_patches)
                order = torch.rand(shape, device=patches.device).argsort(dim=-1)
            else:
                order = self.inference_patch_order[:num_frames].expand(num_clips, -1, -1)
            patches = patches.gather(2, order[..., None].expand(-1, -1, -1, FEATURE_DIM))
        class_token = (vit.cls_token + vit.pos_embed[:, :1]).expand(num_clips, num_frames, -1, -1)
        tokens = vit.pos_drop(torch.cat([class_token, patches], dim=2))
        typed: Tensor = tokens + self.token_type_embeddings.weight[IMAGE_TYPE]
        return typed

    def _through_blocks(
        self,
        tokens: Float[Tensor, "clip frame token dim"],
        attn_mask: Bool[Tensor, "sequence 1 1 token"] | None,
        *,
        rolled_from: int | None,
    ) -> Float[Tensor, "clip frame dim"]:
        """Return the first token of each frame after all blocks and the last norm.

        Tokens from `rolled_from` on are rolled along time before each block; None rolls none.
        """
        num_clips, num_frames = tokens.shape[:2]
        last = len(self.transformer.blocks) - 1
        for depth, block in enumerate(self.transformer.blocks):
            if rolled_from is not None:
                rolled = roll_tokens(tokens[:, :, rolled_from:])
                tokens = torch.cat([tokens[:, :, :rolled_from], rolled], dim=2)
            tokens = tokens.flatten(0, 1)
            if depth < last:
                tokens = block(tokens, attn_mask=attn_mask)
            else:
                tokens = first_token_block(block, tokens, attn_mask)
            tokens = tokens.unflatten(0, (num_clips, num_frames))
        first: Tensor = self.transformer.norm(tokens[:, :, 0])
        return first

    def forward(
        self,
        frames: Float[Tensor, "clip frame 3 height width"],
        token_ids: Int[Tensor, "clip word"],
        token_mask: Bool[Tensor, "clip word"],
    ) -> Float[Tensor, "clip frame 192"]:
        """Return F_m: the final text class token of each frame, after the last layer norm.

        `frames` are normalized pixels. Rolling mixes neighboring frames, so a frame's feature depends on
        the others: the device computes all of them and uploads one.
        """
        return self.fuse(self._image_tokens(frames), token_ids, token_mask)

    def fuse(
        self,
        image: Float[Tensor, "clip frame token dim"],
        token_ids: Int[Tensor, "clip word"],
        token_mask: Bool[Tensor, "clip word"],
    ) -> Float[Tensor, "clip frame 192"]:
        """Return F_m for image tokens that are already embedded."""
        num_clips, num_frames, num_image = image.shape[:3]
        token_ids, token_mask = _without_common_padding(token_ids, token_mask)
        text = self._text_tokens(token_ids)[:, None].expand(-1, num_frames, -1, -1)
        # One key mask per frame: padded words are hidden, image tokens are always seen.
        keys = torch.cat([token_mask, token_mask.new_ones(num_clips, num_image)], dim=1)
        attn_mask = keys[:, None, :].expand(-1, num_frames, -1).flatten(0, 1)[:, None, None, :]
        return self._through_blocks(
            torch.cat([text, image], dim=2), attn_mask, rolled_from=token_ids.shape[1]
        )

    def fuse_candidates(
        self,
        frames: Float[Tensor, "clip frame 3 height width"],
        token_ids: Int[Tensor, "clip candidate word"],
        token_mask: Bool[Tensor, "clip candidate word"],
    ) -> Float[Tensor, "clip candidate frame 192"]:
        """Return F_m of each clip with each of its candidate texts; frames are embedded once."""
        num_candidates = token_ids.shape[1]
        image = self._image_tokens(frames).repeat_interleave(num_candidates, dim=0)
        fused = self.fuse(image, token_ids.flatten(0, 1), token_mask.flatten(0, 1))
        by_candidate: Tensor = fused.unflatten(0, (-1, num_candidates))
        return by_candidate

    def video(self, frames: Float[Tensor, "clip frame 3 height width"]) -> Float[Tensor, "clip frame 192"]:
        """Return the image class token of each frame without text and, as in All-in-One, without rolling."""
        return self._through_blocks(self._image_tokens(frames), None, rolled_from=None)

    def text(
        self, token_ids: Int[Tensor, "clip word"], token_mask: Bool[Tensor, "clip word"]
    ) -> Float[Tensor, "clip 192"]:
        """Return the class token of a text without any frames."""
        token_ids, token_mask = _without_common_padding(token_ids, token_mask)
        tokens = self._text_tokens(token_ids)[:, None]
        return self._through_blocks(tokens, token_mask[:, None, None, :], rolled_from=None)[:, 0]

    def _text_tokens(self, token_ids: Int[Tensor, "clip word"]) -> Float[Tensor, "clip word dim"]:
        embedded: Tensor = self.text_embeddings(token_ids) + self.token_type_embeddings.weight[TEXT_TYPE]
        return embedded
