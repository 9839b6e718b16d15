"""Settings and manifests that the pages show are what the operator takes, and fit together."""

import re
import shlex
import textwrap

import pytest
import typer
import yaml

from console.commands.operator import read_config
from console.main import app
from tests.repository.tree import ROOT

PAGE = ROOT / "docs/tasks/import-profiles.md"
BLOCK = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)


def blocks(page):
    return [textwrap.dedent(each).strip("\n") for each in BLOCK.findall(page.read_text())]


def shown(kind):
    (found,) = [yaml.safe_load(each) for each in blocks(PAGE) if f"kind: {kind}\n" in each + "\n"]
    return found


@pytest.fixture
def settings(tmp_path):
    ((name, text),) = shown("ConfigMap")["data"].items()
    path = tmp_path / name
    path.write_text(text)
    return name, read_config(path)


def mounts():
    pod = shown("Deployment")["spec"]["template"]["spec"]
    volumes = {each["name"]: each["configMap"]["name"] for each in pod["volumes"]}
    return {each["mountPath"]: volumes[each["name"]] for each in pod["containers"][0]["volumeMounts"]}


def test_the_shown_settings_are_the_operators(settings):
    _, config = settings
    assert (config.profiles.folder, config.profiles.measured) == ("/etc/plimsoll/profiles", "auto")


def test_the_deployment_mounts_the_settings_and_the_folder_they_name(settings):
    name, config = settings
    where = mounts()
    manifest = shown("ConfigMap")["metadata"]
    args = shown("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    path = args[args.index("--config") + 1]
    assert where[path.removesuffix(f"/{name}")] == manifest["name"]
    (command,) = [
        line for each in blocks(PAGE) for line in each.splitlines() if "--config-map" in line and "@" in line
    ]
    words = shlex.split(command)
    made, _, namespace = words[words.index("--config-map") + 1].partition("@")
    assert where[config.profiles.folder] == made
    assert namespace == manifest["namespace"] == shown("Deployment")["metadata"]["namespace"]


def test_the_deployments_arguments_are_known():
    first, *args = shown("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    command = typer.main.get_command(app).commands[first]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {each for each in args if each.startswith("--")} <= known


def test_the_settings_on_a_machine_name_a_folder(tmp_path):
    (text,) = [each for each in blocks(ROOT / "docs/tasks/run-a-cluster.md") if each.startswith("profiles:")]
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    assert read_config(path).profiles.folder == "measured"
