"""The learned embedding of a run, whichever of the trainers learned it."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def choose_embedding(uri: str, learned_embedding: dsl.Output[dsl.Model]) -> None:
    """Makes one artifact of the address that the trainer gave: `dsl.OneOf` joins texts everywhere, but artifacts not.

    `kfp.local` and clusters before KFP 2.17 refuse it for artifacts.
    """
    learned_embedding.uri = uri
