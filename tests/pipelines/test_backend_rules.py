"""Every fault that a backend fails on and the local runner does not is found, and pipelines without one have none."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipelines.backend_rules import problems, requests_that_do_not_fit, shape_problems

Documents = list[dict[str, Any]]


@dsl.component(base_image="toy:1", install_kfp_package=False)
def plan(
    colour: str,
) -> NamedTuple(
    "Plan",
    [
        ("image", str),
        ("cpu", str),
        ("memory", str),
        ("accelerator", str),
        ("count", str),
        ("number", int),
        ("selector", dict),
        ("tolerations", list),
    ],
):
    """Says what the painter needs."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def paint(colour: str, picture: dsl.Output[dsl.Artifact]) -> str:
    """Writes a picture where its address points."""
    with open(picture.path, "w") as file:
        file.write(colour)
    return picture.uri


@dsl.component(base_image="toy:1", install_kfp_package=False)
def show(picture: dsl.Input[dsl.Artifact]):
    """Shows a picture."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def say(text: str):
    """Says a text."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def point_elsewhere(uri: str, picture: dsl.Output[dsl.Artifact]):
    """Gives out what another run made as its own."""
    picture.metadata["from"] = uri
    picture.uri = uri


@dsl.container_component
def greet(name: str = "world"):
    return dsl.ContainerSpec(image="toy:1", command=["echo"], args=["hello", name])


@dsl.container_component
def greet_quietly(name: str = ""):
    arguments = dsl.IfPresentPlaceholder(input_name="name", then=["hello", name], else_=["hello"])
    return dsl.ContainerSpec(image="toy:1", command=["echo"], args=[arguments])


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Documents]:
    def compile_it(pipeline: Any) -> Documents:
        file = tmp_path / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))

    return compile_it


@dsl.pipeline(name="flat")
def flat(colour: str = "red", secret: str = "key"):
    planned = plan(colour=colour)
    painted = paint(colour=f"dark {colour}")
    painted.set_container_image(planned.outputs["image"])
    painted.set_cpu_request(planned.outputs["cpu"]).set_cpu_limit(planned.outputs["cpu"])
    painted.set_memory_request(planned.outputs["memory"]).set_memory_limit(planned.outputs["memory"])
    painted.set_accelerator_type(planned.outputs["accelerator"]).set_accelerator_limit(planned.outputs["count"])
    kubernetes.add_node_selector_json(painted, planned.outputs["selector"])
    kubernetes.add_toleration_json(painted, planned.outputs["tolerations"])
    kubernetes.use_secret_as_env(painted, secret_name=secret, secret_key_to_env={"token": "TOKEN"})
    kubernetes.empty_dir_mount(painted, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")
    show(picture=painted.outputs["picture"]).set_cpu_limit("500m").set_memory_limit("1Gi")
    say(text=painted.outputs["Output"]).after(planned)
    imported = dsl.importer(artifact_uri="gs://bucket/picture", artifact_class=dsl.Artifact)
    show(picture=imported.output)
    greet(name="you")
    greet_quietly()


def task(documents: Documents, name: str) -> dict[str, Any]:
    found: dict[str, Any] = documents[0]["root"]["dag"]["tasks"][name]
    return found


def container(documents: Documents, name: str) -> dict[str, Any]:
    found: dict[str, Any] = documents[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return found


def selector(documents: Documents) -> dict[str, Any]:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    found: dict[str, Any] = executors["exec-paint"]["nodeSelector"]
    return found


def only(found: list[str], *parts: str) -> None:
    """There is one problem, and it says all of this."""
    assert len(found) == 1, found
    for part in parts:
        assert part in found[0]


def test_flat_pipeline_with_resources_from_another_task_has_no_problem(compiled: Callable[..., Documents]):
    documents = compiled(flat)
    assert "resourceCpuLimit" in container(documents, "paint")["resources"], "the resources are no part of the pipeline"
    assert "taskOutputParameter" in selector(documents)["nodeSelectorJson"]
    assert problems(documents) == []
    assert shape_problems(documents) == []


def test_branches_loops_and_nested_pipelines_have_no_problem_where_everything_is_passed_on(
    compiled: Callable[..., Documents],
):
    @dsl.pipeline(name="inner")
    def inner(colour: str, times: int = 1) -> dsl.Artifact:
        return paint(colour=colour).outputs["picture"]

    @dsl.pipeline(name="outer")
    def outer(colour: str, cpu: str = "1", items: list = ["a"]):  # noqa: B006 - a pipeline's default
        nested = inner(colour=colour)
        with dsl.If(colour == "red"):
            shown = show(picture=nested.output)
            shown.register_pipeline_channels([cpu])
            shown.set_cpu_limit(cpu)
        with dsl.ParallelFor(items) as item:
            painted = paint(colour=item)
        with dsl.ParallelFor([{"a": "1"}]) as item:
            say(text=item.a)
        say(text="done").after(painted)

    assert problems(compiled(outer)) == []


def test_resource_is_found_when_it_is_lost_in_a_branch(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="lost")
    def lost(colour: str, cpu_per_node: str = "1"):
        with dsl.If(colour == "red"):
            say(text=colour).set_cpu_limit(cpu_per_node)

    only(
        problems(compiled(lost)),
        "comp-condition-1, task 'say'",
        "parent DAG comp-condition-1 does not have input parameter pipelinechannel--cpu_per_node",
    )


def test_resource_is_found_when_it_is_a_part_of_a_loop_item(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="lost")
    def lost():
        with dsl.ParallelFor([{"word": "a", "cpu": "1"}]) as item:
            say(text=item.word).set_cpu_limit(item.cpu)

    only(problems(compiled(lost)), "comp-for-loop-2, task 'say', inputs.parameters.", "subvar-cpu")


def test_node_selector_is_found_when_it_is_lost_in_a_branch(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="lost")
    def lost(colour: str, labels: dict):
        with dsl.If(colour == "red"):
            kubernetes.add_node_selector_json(say(text=colour), labels)

    documents = compiled(lost)
    assert problems(documents) == []
    branch = documents[0]["components"]["comp-condition-1"]
    del branch["inputDefinitions"]["parameters"]["pipelinechannel--labels"]
    only(
        problems(documents),
        "comp-condition-1, task 'say', kubernetes.nodeSelector.nodeSelectorJson: "
        "parent DAG comp-condition-1 does not have input parameter pipelinechannel--labels",
    )


def test_one_of_is_found(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="one-of")
    def one_of(colour: str):
        with dsl.If(colour == "red"):
            red = paint(colour="red")
        with dsl.Else():
            other = paint(colour=colour)
        show(picture=dsl.OneOf(red.outputs["picture"], other.outputs["picture"]))
        say(text=dsl.OneOf(red.outputs["Output"], other.outputs["Output"]))

    found = problems(compiled(one_of))
    assert ["comp-condition-branches-1, outputs.artifacts." in line for line in found] == [False, True]
    assert all("is one of condition-2, condition-3 (OneOf)" in line for line in found)


def test_output_is_found_when_it_is_pointed_elsewhere(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="elsewhere")
    def elsewhere(uri: str):
        point_elsewhere(uri=uri)

    only(problems(compiled(elsewhere)), "root, task 'point-elsewhere', container.command[3]", "assigns to picture.uri")


def test_reader_is_found_when_what_it_reads_is_behind_a_condition(compiled: Callable[..., Documents]):
    documents = compiled(flat)
    condition = {"condition": "inputs.parameter_values['colour'] == 'red'"}
    task(documents, "plan")["triggerPolicy"] = condition
    found = problems(documents)
    assert [line.split(",")[1] for line in found] == [" task 'paint'", " task 'say'"]
    assert all(
        "dependentTasks: 'plan' runs only if inputs.parameter_values['colour'] == 'red'" in line for line in found
    )

    for reader in ("paint", "say"):
        task(documents, reader)["triggerPolicy"] = condition
        task(documents, reader)["inputs"]["parameters"]["colour"] = {"componentInputParameter": "colour"}
    assert [line.split(",")[1] for line in problems(documents)] == [" task 'show'"]


def test_condition_may_leave_out_all_that_follows(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="told")
    def told(colour: str) -> str:
        planned = plan(colour=colour)
        painted = paint(colour=planned.outputs["image"])
        say(text=planned.outputs["cpu"])
        show(picture=painted.outputs["picture"])
        return painted.outputs["Output"]

    documents = compiled(told)
    for name, parameter in (("paint", "colour"), ("say", "text")):
        task(documents, name)["triggerPolicy"] = {"condition": f"inputs.parameter_values['{parameter}'] != ''"}
    found = problems(documents)
    assert len(found) == 2 and all("paint" in line and "only if" in line for line in found), "two conditions"
    task(documents, "say")["inputs"]["parameters"]["colour"] = task(documents, "say")["inputs"]["parameters"]["text"]
    task(documents, "say")["triggerPolicy"] = task(documents, "paint")["triggerPolicy"]
    assert problems(documents) == []
    assert shape_problems(documents) == []
    del task(documents, "say")["triggerPolicy"]
    assert len(problems(documents)) == 2, "it would run alone"


def test_condition_of_an_importer_is_found(compiled: Callable[..., Documents]):
    documents = compiled(flat)
    task(documents, "importer")["triggerPolicy"] = {"condition": "1 == 2"}
    assert any("task 'importer', triggerPolicy.condition: an importer" in line for line in problems(documents))


def test_output_of_a_graph_is_found_when_it_comes_from_behind_a_condition(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="inner")
    def inner(colour: str) -> str:
        return paint(colour=colour).outputs["Output"]

    @dsl.pipeline(name="outer")
    def outer(colour: str):
        say(text=inner(colour=colour).output)

    documents = compiled(outer)
    inside = documents[0]["components"]["comp-inner"]["dag"]["tasks"]["paint"]
    inside["triggerPolicy"] = {"condition": "inputs.parameter_values['colour'] == 'red'"}
    only(problems(documents), "comp-inner, outputs.parameters.Output: comes from 'paint', which may not run")


def _no_such_input(documents: Documents) -> None:
    task(documents, "plan")["inputs"]["parameters"]["colour"] = {"componentInputParameter": "shade"}


def _no_such_task(documents: Documents) -> None:
    task(documents, "show")["inputs"]["artifacts"]["picture"]["taskOutputArtifact"]["producerTask"] = "draw"


def _no_such_output(documents: Documents) -> None:
    task(documents, "show")["inputs"]["artifacts"]["picture"]["taskOutputArtifact"]["outputArtifactKey"] = "drawing"


def _not_waited_for(documents: Documents) -> None:
    del task(documents, "show")["dependentTasks"]


def _no_such_dependency(documents: Documents) -> None:
    task(documents, "greet")["dependentTasks"] = ["draw"]


def _no_source(documents: Documents) -> None:
    task(documents, "plan")["inputs"]["parameters"]["colour"] = {}


def _not_given(documents: Documents) -> None:
    del task(documents, "plan")["inputs"]["parameters"]["colour"]


def _importer_without_address(documents: Documents) -> None:
    documents[0]["deploymentSpec"]["executors"]["exec-importer"]["importer"]["artifactUri"] = {"runtimeParameter": "at"}


def _image_of_no_input(documents: Documents) -> None:
    container(documents, "plan")["image"] = "{{$.inputs.parameters['pipelinechannel--image']}}"


def _accelerator_of_no_input(documents: Documents) -> None:
    accelerator = {"resourceType": "gpu", "resourceCount": "{{$.inputs.parameters['gpus']}}"}
    container(documents, "plan")["resources"] = {"accelerator": accelerator}


def _argument_of_no_input(documents: Documents) -> None:
    container(documents, "greet")["args"].append("and {{$.inputs.parameters['others']}}")


def _constant_of_no_input(documents: Documents) -> None:
    constant = {"runtimeValue": {"constant": "dark {{$.inputs.parameters['pipelinechannel--colour']}}"}}
    task(documents, "plan")["inputs"]["parameters"]["colour"] = constant


def _argument_that_is_a_default(documents: Documents) -> None:
    del task(documents, "greet")["inputs"]["parameters"]["name"]


def _image_that_is_a_default(documents: Documents) -> None:
    container(documents, "greet-quietly")["image"] = "{{$.inputs.parameters['name']}}"


def _count_that_is_a_number(documents: Documents) -> None:
    output = task(documents, "paint")["inputs"]["parameters"]["pipelinechannel--plan-count"]["taskOutputParameter"]
    output["outputParameterKey"] = "number"


def _selector_of_no_task(documents: Documents) -> None:
    selector(documents)["nodeSelectorJson"]["taskOutputParameter"]["producerTask"] = "draw"


def _selector_that_is_a_text(documents: Documents) -> None:
    selector(documents)["nodeSelectorJson"]["taskOutputParameter"]["outputParameterKey"] = "cpu"


def _condition_on_no_input(documents: Documents) -> None:
    task(documents, "greet")["triggerPolicy"] = {"condition": "inputs.parameter_values['shade'] == 'red'"}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_no_such_input, "'plan', inputs.parameters.colour: parent DAG root does not have input parameter shade"),
        (
            _no_such_task,
            "'show', inputs.artifacts.picture: comes from task 'draw', but root has only greet, greet-quietly,",
        ),
        (_no_such_output, "'show', inputs.artifacts.picture: 'paint' has no output artifact 'drawing', only picture"),
        (_not_waited_for, "'show', inputs.artifacts.picture: reads 'picture' of 'paint' without waiting for it"),
        (_no_such_dependency, "'greet', dependentTasks: root has no task 'draw'"),
        (_no_source, "'plan', inputs.parameters.colour: comes from {}, expected a constant, an input of root"),
        (_not_given, "'plan', inputs.parameters.colour: its component needs it"),
        (_importer_without_address, "'importer', importer.artifactUri: looks at 'at', which is no input of the task"),
        (_image_of_no_input, "'plan', container.image: reads 'pipelinechannel--image', which the task does"),
        (_accelerator_of_no_input, "'plan', container.resources.accelerator.resourceCount: reads 'gpus', which the"),
        (_argument_of_no_input, "'greet', container.args[2]: reads 'others', which the task does not give it"),
        (_constant_of_no_input, "'plan', inputs.parameters.colour.constant: reads 'pipelinechannel--colour', which"),
        (_argument_that_is_a_default, "'greet', container.args[1]: reads 'name', which the task does not give it"),
        (_image_that_is_a_default, "'greet-quietly', container.image: reads 'name', which the task does not give it"),
        (_count_that_is_a_number, "'paint', container.resources.accelerator.resourceCount: reads"),
        (_selector_of_no_task, "'paint', kubernetes.nodeSelector.nodeSelectorJson: comes from task 'draw'"),
        (_selector_that_is_a_text, "'paint', kubernetes.nodeSelector.nodeSelectorJson: is a STRING, and the driver"),
        (_condition_on_no_input, "'greet', triggerPolicy.condition: looks at 'shade', which is no input of the task"),
    ],
)
def test_fault_is_found_when_the_file_is_damaged(
    compiled: Callable[..., Documents], damage: Callable[[Documents], None], expected: str
):
    sound = compiled(flat)
    damaged = copy.deepcopy(sound)
    damage(damaged)
    assert damaged != sound
    only(problems(damaged), f"root, task {expected}")


def test_shape_names_conditions_and_exit_handlers(compiled: Callable[..., Documents]):
    @dsl.pipeline(name="shaped")
    def shaped(colour: str):
        with dsl.ExitHandler(say(text="over")):
            paint(colour=colour)
        with dsl.If(colour == "red"):
            plan(colour=colour)

    documents = compiled(shaped)
    assert problems(documents) == []
    found = shape_problems(documents)
    assert len(found) == 2
    assert found[0].startswith("root, task 'condition-2', triggerPolicy.condition: runs only if ")
    assert found[1].startswith("root, task 'say', triggerPolicy.strategy: an exit handler of exit-handler-1, ")


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"resourceCpuRequest": "2", "resourceMemoryRequest": "4Gi"}, None),
        ({"resourceCpuRequest": "2000m", "resourceMemoryRequest": "4096Mi"}, None),
        (
            {"resourceCpuRequest": "2001m"},
            "resources.resourceCpuRequest: '2001m' does not fit a node with 2 processors",
        ),
        ({"resourceCpuLimit": "3"}, "resources.resourceCpuLimit: '3' does not fit"),
        ({"resourceCpuRequest": "1", "resourceCpuLimit": "3"}, None),
        ({"cpuRequest": 2.5}, "resources.cpuRequest: '2.5' does not fit"),
        ({"cpuRequest": 2.5, "resourceCpuRequest": "1"}, None),
        ({"resourceMemoryRequest": "4.1Gi"}, "resources.resourceMemoryRequest: '4.1Gi' does not fit a node with 4 GiB"),
        ({"resourceMemoryRequest": "4294967296"}, None),
        ({"resourceMemoryRequest": "4294967297"}, "'4294967297' does not fit"),
        ({"resourceMemoryRequest": "4.2G"}, None),
        ({"resourceMemoryRequest": "4.3G"}, "'4.3G' does not fit"),
        ({"resourceMemoryRequest": "5e9"}, "'5e9' does not fit"),
        ({"resourceMemoryRequest": "1E"}, "'1E' does not fit"),
        ({"memoryLimit": 4.3}, "resources.memoryLimit: '4.3G' does not fit"),
        ({"resourceMemoryRequest": "4GB"}, "'4GB' is not a quantity of Kubernetes"),
        ({"resourceMemoryRequest": "{{$.inputs.parameters['memory']}}"}, None),
    ],
)
def test_request_is_found_when_it_does_not_fit_the_node(
    compiled: Callable[..., Documents], resources: dict[str, Any], expected: str | None
):
    documents = compiled(flat)
    container(documents, "show")["resources"] = resources
    found = requests_that_do_not_fit(documents, cpu=2, memory_gib=4)
    if expected is None:
        assert found == []
    else:
        only(found, "root, task 'show', ", expected)


def test_request_is_found_as_the_compiler_writes_it(compiled: Callable[..., Documents]):
    found = requests_that_do_not_fit(compiled(flat), cpu=0.25, memory_gib=0.5)
    assert [line.split(", ", 1)[1].split(" does")[0] for line in found] == [
        "task 'show', resources.resourceCpuLimit: '500m'",
        "task 'show', resources.resourceMemoryLimit: '1Gi'",
    ]
