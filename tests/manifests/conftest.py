"""The manifests as a site has them: with the files that git ignores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.manifests.rendering import COMPONENTS, MANIFESTS, OVERLAYS, Object, render, render_with

WITH_COMPONENTS = {
    **{f"base with {name}": ("base", [name]) for name in COMPONENTS if name != "release"},  # the base has that itself
    "namespace of others with everything": (
        "base/training",
        [name for name in COMPONENTS if name not in ("release", "kfp-object-store")],
    ),
    "on-prem with everything": (
        "overlays/on-prem",
        [name for name in COMPONENTS if name not in ("kfp-object-store", "retention", "trainer")],  # it has them
    ),
}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests with a token and certificates."""
    folder = tmp_path_factory.mktemp("site") / "manifests"
    shutil.copytree(MANIFESTS, folder)
    (folder / "components" / "gated-model-token" / "hub-token.env").write_text("HF_TOKEN=hf_not_a_token\n")
    (folder / "components" / "proxy" / "ca-bundle.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    return folder


@pytest.fixture(scope="session", params=[*OVERLAYS, *WITH_COMPONENTS])
def objects(request: pytest.FixtureRequest, site: Path) -> list[Object]:
    """Everything that is deployed: by each overlay, by each component on the base, and by all components together."""
    if request.param in OVERLAYS:
        return render(site / "overlays" / request.param)
    return render_with(site / request.param.replace(" ", "-"), *WITH_COMPONENTS[request.param])


@pytest.fixture(scope="session")
def gke() -> list[Object]:
    return render(MANIFESTS / "overlays" / "gke")


@pytest.fixture(scope="session")
def on_prem() -> list[Object]:
    return render(MANIFESTS / "overlays" / "on-prem")


@pytest.fixture(scope="session")
def dev() -> list[Object]:
    return render(MANIFESTS / "overlays" / "dev")


@pytest.fixture(scope="session")
def everything(site: Path) -> list[Object]:
    """Objects of every kind."""
    return render_with(site / "everything", *WITH_COMPONENTS["on-prem with everything"])
