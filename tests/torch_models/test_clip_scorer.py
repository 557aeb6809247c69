from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from components.common.errors import BaseModelError
from components.torch_models.clip_scorer import ClipScorer
from tests.evaluate.contents import pattern

CPU = torch.device("cpu")


def test_embeddings_are_unit_vectors_of_one_space(tiny_clip):
    scorer = ClipScorer(tiny_clip, device=CPU)
    pictures = scorer.embed_pictures([pattern(0, 32), pattern(1, 64)])
    texts = scorer.embed_texts(["a photo of a toy", "a cat"])

    assert pictures.shape == texts.shape == (2, 16)
    assert pictures.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([pictures, texts]), axis=1), 1, atol=1e-5)


def test_embeddings_are_those_of_the_model(tiny_clip):
    scorer = ClipScorer(tiny_clip, device=CPU)
    picture = pattern(3, 32)  # the size of the model: no resizing
    inputs = scorer._processor(images=[Image.fromarray(picture)], return_tensors="pt")
    tokens = scorer._tokenizer(["a photo of a toy"], return_tensors="pt")
    output = CLIPModel.from_pretrained(tiny_clip).eval()(**inputs, **tokens)

    np.testing.assert_allclose(scorer.embed_pictures([picture]), output.image_embeds.detach(), atol=1e-5)
    np.testing.assert_allclose(scorer.embed_texts(["a photo of a toy"]), output.text_embeds.detach(), atol=1e-5)


def test_embeddings_do_not_depend_on_what_else_is_embedded(tiny_clip):
    scorer = ClipScorer(tiny_clip, device=CPU)
    pictures = [pattern(seed) for seed in range(40)]  # more than one batch
    texts = ["a cat", "a close-up photo of a clean toy on the beach"]

    alone = np.concatenate([scorer.embed_pictures([picture]) for picture in pictures])
    np.testing.assert_allclose(scorer.embed_pictures(pictures), alone, atol=1e-5)
    alone = np.concatenate([scorer.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(scorer.embed_texts(texts), alone, atol=1e-5)


def test_long_text_is_cut_off(tiny_clip):
    scorer = ClipScorer(tiny_clip, device=CPU)
    assert scorer.embed_texts(["a toy " * 200]).shape == (1, 16)


def test_scorer_when_the_folder_is_no_clip_model(tmp_path, tiny_sd15):
    for folder in (tmp_path, tiny_sd15):
        with pytest.raises(BaseModelError, match="no folder of a CLIP model"):
            ClipScorer(folder, device=CPU)
