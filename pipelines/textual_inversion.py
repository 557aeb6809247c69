"""The pipeline `textual-inversion`: from a handful of pictures to a published word. The graph alone.

It is flat: no branches, no exit handler. So a person sees the whole run at first sight, every repeat is answered from
the cache, and no step costs more than its own two pods. Where preflight finds nothing to do it tells the steps nothing,
and the run ends with it: see `pipelines.compiling.with_conditions`.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.common.families import TITLES
from components.common.images import TRAINING_IMAGES, image
from components.encode_latents.component import encode_latents
from components.evaluate.component import evaluate
from components.find_start_word.component import find_start_word
from components.import_base_model.component import import_base_model
from components.ingest_images.component import ingest_images
from components.init_embedding.component import init_embedding
from components.preflight.component import preflight
from components.publish.component import publish
from components.train.component import train
from pipelines.environment import with_destination_keys, with_tracker_keys
from pipelines.form import takes_the_form
from pipelines.resources import DAY, LIGHT, MEDIUM, WEEK, request, request_pod, share_memory


class Outputs(NamedTuple):
    """What a run gives, for whoever reads its outputs.

    Attributes:
        base_model: the reference to the base model.
        learned_embedding: the learned rows.
        evaluation: samples, scores and the verdict.
        decision: whether the run has trained, and why; where it has not, there are no other outputs.
        published: the version's address and, where the alias did not move to it, why; or `not published: ...`.
    """

    base_model: dsl.Model
    learned_embedding: dsl.Model
    evaluation: dsl.Artifact
    decision: str
    published: str


@dsl.pipeline(
    name="textual-inversion",
    display_name="Textual Inversion",
    description=f"Teaches a base model ({TITLES}) a new word from a handful of pictures, and publishes the word's "
    "embedding when samples show that it was learned.",
)
@takes_the_form(preflight, but_for=["training_images"])
def textual_inversion(form: dict[str, Any]) -> Outputs:
    """Pictures to ImageSet to LatentSet to LearnedEmbedding to Evaluation to registry entry.

    Preflight checks every option and gives each step its whole config as one text, so that a step is answered from the
    cache as long as its own options and inputs are the same.
    """
    # It looks at what is there now, so it is never answered from the cache. Its fingerprints of the sources are in the
    # configs of the steps that read them.
    images = {name: image(name) for name in TRAINING_IMAGES}
    checked = preflight(**form, training_images=images).set_display_name("Check everything").set_caching_options(False)
    request(checked, LIGHT)
    told = checked.outputs

    model = import_base_model(config=told["import_base_model"]).set_display_name("Import base model")
    clip = import_base_model(config=told["import_scorer"]).set_display_name("Import scorer")
    pictures = ingest_images(config=told["prepare_pictures"]).set_display_name("Prepare pictures")
    scoring_set = ingest_images(config=told["prepare_scoring_set"]).set_display_name("Prepare scoring set")
    for task in (model, clip, pictures, scoring_set):
        request(task, MEDIUM)

    latents = encode_latents(
        config=told["encode_pictures"],
        image_set=pictures.outputs["image_set"],
        base_model=model.outputs["reference"],
    ).set_display_name("Encode pictures")
    request_pod(latents, told, "encoding", timeout_seconds=DAY)

    start = find_start_word(
        config=told["find_the_start_word"],
        image_set=pictures.outputs["image_set"],
        latent_set=latents.outputs["latent_set"],
        base_model=model.outputs["reference"],
        scorer=clip.outputs["reference"],
    ).set_display_name("Find the start word")
    request_pod(start, told, "encoding", timeout_seconds=DAY)

    word = init_embedding(
        config=told["add_the_new_word"],
        base_model=model.outputs["reference"],
        start_word=start.outputs["start_word"],
    ).set_display_name("Add the new word")
    request(word, MEDIUM)

    # What runs in it is preflight's choice: a trainer, or what launches one on several nodes and waits for it.
    learned = train(
        config=told["train"],
        latent_set=latents.outputs["latent_set"],
        base_model=model.outputs["reference"],
        initial_embedding=word.outputs["initial_embedding"],
    ).set_display_name("Train")
    learned.set_container_image(told["training_image"])
    with_tracker_keys(share_memory(request_pod(learned, told, "training", timeout_seconds=WEEK)))

    judged = evaluate(
        config=told["sample_and_score"],
        base_model=model.outputs["reference"],
        scorer=clip.outputs["reference"],
        initial_embedding=word.outputs["initial_embedding"],
        learned_embedding=learned.outputs["learned_embedding"],
        scoring_set=scoring_set.outputs["image_set"],
        start_word=start.outputs["start_word"],
        training_set=pictures.outputs["image_set"],
    ).set_display_name("Sample and score")
    request_pod(judged, told, "evaluation", timeout_seconds=DAY)

    # What it does is in the registry, where others move aliases too: an earlier answer says nothing about now.
    # It may run again at any time: what is published already is found and not published twice.
    published = publish(
        config=told["publish"],
        base_model=model.outputs["reference"],
        learned_embedding=learned.outputs["learned_embedding"],
        evaluation=judged.outputs["evaluation"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    ).set_display_name("Publish if learned")
    with_destination_keys(request(published, LIGHT).set_caching_options(False))
    return Outputs(
        base_model=model.outputs["reference"],
        learned_embedding=learned.outputs["learned_embedding"],
        evaluation=judged.outputs["evaluation"],
        decision=told["decision"],
        published=published.outputs["Output"],
    )
