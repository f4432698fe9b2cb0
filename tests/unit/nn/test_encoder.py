import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.errors import ConfigError
from hyperfleet.nn.encoder import AllInOneEncoder, first_token_block
from hyperfleet.nn.encoder_config import EncoderConfig, all_in_one_ti, tiny
from hyperfleet.nn.token_rolling import roll_tokens


def example(config: EncoderConfig, num_clips: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = config.image_size
    frames = torch.randn(num_clips, config.num_frames, 3, size, size, generator=generator)
    words = torch.randint(1, config.vocab_size, (num_clips, config.text_length), generator=generator)
    mask = torch.arange(config.text_length).expand(num_clips, -1) < 5
    return frames, words, mask


def test_rolling_moves_24_tokens_each_way_and_keeps_the_class_token() -> None:
    tokens = torch.arange(3 * 197).view(1, 3, 197, 1).float()
    rolled = roll_tokens(tokens)
    assert torch.equal(rolled[:, :, 0], tokens[:, :, 0])
    assert torch.equal(rolled[:, 1, 1:25], tokens[:, 0, 1:25])
    assert torch.equal(rolled[:, 1, 173:], tokens[:, 2, 173:])
    assert torch.equal(rolled[:, :, 25:173], tokens[:, :, 25:173])
    assert (rolled != tokens).sum() == 3 * 48


@given(num_frames=st.integers(1, 5), num_tokens=st.integers(1, 40))
def test_rolling_once_a_frame_is_the_identity(num_frames: int, num_tokens: int) -> None:
    tokens = torch.randn(2, num_frames, num_tokens, 3)
    rolled = tokens
    for _ in range(num_frames):
        rolled = roll_tokens(rolled)
    assert torch.equal(rolled, tokens)


def test_last_block_computes_only_the_class_token_and_nothing_else_changes() -> None:
    config = tiny(100)
    block = AllInOneEncoder(config).eval().transformer.blocks[0]
    tokens = torch.randn(6, 29, 192)
    mask = torch.rand(6, 1, 1, 29) > 0.3
    mask[..., 0] = True
    torch.testing.assert_close(first_token_block(block, tokens, mask), block(tokens, attn_mask=mask)[:, :1])


def test_encoder_equals_a_naive_loop_over_frames_and_blocks() -> None:
    config = dataclasses.replace(tiny(100), depth=3)
    encoder = AllInOneEncoder(config).eval()
    torch.nn.init.normal_(encoder.transformer.temporal_embed)
    frames, words, mask = example(config, num_clips=1)
    vit = encoder.transformer
    text = encoder.text_embeddings(words)[0] + encoder.token_type_embeddings.weight[0]
    streams = []
    for t in range(config.num_frames):
        patches = vit.patch_embed(frames[:, t])[0] + vit.pos_embed[0, 1:] + vit.temporal_embed[0, t]
        cls = vit.cls_token[0] + vit.pos_embed[0, :1]
        streams.append(torch.cat([cls, patches]) + encoder.token_type_embeddings.weight[1])
    texts = [text] * config.num_frames
    fold = 17 // 8
    keys = torch.cat([mask[0], torch.ones(17, dtype=torch.bool)])[None, None, None]
    for block in vit.blocks:
        before = [s.clone() for s in streams]
        for t in range(config.num_frames):
            streams[t][1 : 1 + fold] = before[t - 1][1 : 1 + fold]
            streams[t][17 - fold :] = before[(t + 1) % config.num_frames][17 - fold :]
        for t in range(config.num_frames):
            out = block(torch.cat([texts[t], streams[t]])[None], attn_mask=keys)[0]
            texts[t], streams[t] = out[: config.text_length], out[config.text_length :]
    expected = torch.stack([vit.norm(text_t)[0] for text_t in texts])[None]
    torch.testing.assert_close(encoder(frames, words, mask), expected, rtol=1e-5, atol=1e-5)


def test_padded_words_do_not_matter() -> None:
    config = tiny(100)
    encoder = AllInOneEncoder(config).eval()
    frames, words, mask = example(config)
    other = words.clone()
    other[~mask] = 7
    torch.testing.assert_close(encoder(frames, words, mask), encoder(frames, other, mask))
    torch.testing.assert_close(encoder.text(words, mask), encoder.text(other, mask))
    # Cutting the padding off is the same as masking it.
    torch.testing.assert_close(encoder.text(words, mask), encoder.text(words[:, :5], mask[:, :5]))


def test_candidates_fused_together_equal_joint_passes_one_by_one() -> None:
    config = tiny(100)
    encoder = AllInOneEncoder(config).eval()
    frames, words, mask = example(config)
    candidates = torch.stack([words, words.flip(0), words.roll(1, dims=1)], dim=1)
    masks = torch.stack([mask, mask, torch.ones_like(mask)], dim=1)
    fused = encoder.fuse_candidates(frames, candidates, masks)
    assert fused.shape == (2, 3, config.num_frames, 192)
    for k in range(3):
        torch.testing.assert_close(
            fused[:, k], encoder(frames, candidates[:, k], masks[:, k]), rtol=1e-5, atol=1e-5
        )


def test_video_alone_is_each_frame_alone_through_plain_blocks() -> None:
    config = dataclasses.replace(tiny(100), depth=3)
    encoder = AllInOneEncoder(config).eval()
    torch.nn.init.normal_(encoder.transformer.temporal_embed)
    frames, _, _ = example(config)
    vit = encoder.transformer
    video = encoder.video(frames)
    for t in range(config.num_frames):
        patches = vit.patch_embed(frames[:, t]) + vit.pos_embed[:, 1:] + vit.temporal_embed[:, t]
        cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(2, -1, -1)
        tokens = torch.cat([cls, patches], dim=1) + encoder.token_type_embeddings.weight[1]
        for block in vit.blocks:
            tokens = block(tokens)
        torch.testing.assert_close(video[:, t], vit.norm(tokens)[:, 0], rtol=1e-5, atol=1e-5)


def test_text_alone_is_plain_blocks_over_its_words() -> None:
    config = dataclasses.replace(tiny(100), depth=3)
    encoder = AllInOneEncoder(config).eval()
    _, words, mask = example(config)
    tokens = encoder.text_embeddings(words) + encoder.token_type_embeddings.weight[0]
    for block in encoder.transformer.blocks:
        tokens = block(tokens, attn_mask=mask[:, None, None])
    expected = encoder.transformer.norm(tokens)[:, 0]
    torch.testing.assert_close(encoder.text(words, mask), expected, rtol=1e-5, atol=1e-5)


def test_frames_see_each_other_through_the_text_but_not_in_the_video_alone() -> None:
    config = tiny(100)
    encoder = AllInOneEncoder(config).eval()
    frames, words, mask = example(config)
    other = frames.clone()
    other[:, 0] += 1
    fused, fused_other = encoder(frames, words, mask), encoder(other, words, mask)
    assert (fused - fused_other).abs().amax(dim=(0, 2)).min() > 1e-4
    alone, alone_other = encoder.video(frames), encoder.video(other)
    torch.testing.assert_close(alone[:, 1:], alone_other[:, 1:])
    assert (alone - alone_other)[:, 0].abs().max() > 1e-4


def test_patch_order_is_random_in_training_and_fixed_at_inference() -> None:
    config = dataclasses.replace(tiny(100), shuffle_patches=True)
    encoder = AllInOneEncoder(config)
    frames, words, mask = example(config)
    assert not torch.equal(encoder(frames, words, mask), encoder(frames, words, mask))
    encoder.eval()
    torch.testing.assert_close(encoder(frames, words, mask), encoder(frames, words, mask), rtol=0, atol=0)


def test_full_size_encoder_gives_one_feature_a_frame() -> None:
    config = all_in_one_ti()
    with torch.inference_mode():
        features = AllInOneEncoder(config).eval()(*example(config, num_clips=1))
    assert features.shape == (1, 3, 192)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("change", [{"image_size": 60}, {"depth": 0}, {"num_heads": 5}, {"text_length": 2}])
def test_impossible_encoders_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        dataclasses.replace(tiny(100), **change)
