from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTImageProcessorPil, ViTModel

from components.common.errors import BaseModelError
from components.torch_models.dino_scorer import DinoScorer
from tests.evaluate.contents import pattern
from tests.tiny_models import make_tiny_dino

CLIP = Path(__file__).parents[2] / "examples" / "sprites" / "clip"
CPU = torch.device("cpu")


@pytest.fixture(params=["dinov2", "vit"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_tiny_dino(tmp_path / request.param, request.param)


def test_embeddings_are_unit_vectors_whatever_is_beside_them(folder: Path) -> None:
    scorer = DinoScorer(folder, device=CPU)
    pictures = [pattern(seed, size) for seed, size in ((0, 32), (1, 64), (2, 28))]
    found = scorer.embed_pictures(pictures)
    assert found.shape == (3, 32) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[1:2], scorer.embed_pictures(pictures[1:2]), atol=1e-5)


def test_embedding_of_dino_is_its_class_token(tmp_path: Path) -> None:
    folder = make_tiny_dino(tmp_path, "vit")
    pixels = ViTImageProcessorPil.from_pretrained(folder)(images=[Image.fromarray(pattern(3))], return_tensors="pt")
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    with torch.no_grad():
        token = model(**pixels).last_hidden_state[0, 0]
    np.testing.assert_allclose(
        DinoScorer(folder, device=CPU).embed_pictures([pattern(3)])[0], token / token.norm(), atol=1e-5
    )


def test_weights_that_are_missing_are_refused_by_name(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.cls_token"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"no folder of a DINO model .*1 missing: embeddings.cls_token"):
        DinoScorer(folder, device=CPU)


def test_layer_that_classifiers_have_is_no_part_of_dino(tmp_path: Path) -> None:
    folder = make_tiny_dino(tmp_path, "vit")
    weights = load_file(folder / "model.safetensors")
    expected = DinoScorer(folder, device=CPU).embed_pictures([pattern(0)])
    weights |= {"pooler.dense.weight": torch.zeros(32, 32), "pooler.dense.bias": torch.zeros(32)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(DinoScorer(folder, device=CPU).embed_pictures([pattern(0)]), expected)


def test_model_of_another_kind_is_refused() -> None:
    with pytest.raises(BaseModelError, match=r"config.json is of a 'clip', expected dinov2 or vit"):
        DinoScorer(CLIP, device=CPU)
