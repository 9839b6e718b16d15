"""Whose an object is, and when what was refused for it may be forgotten."""

import pytest

from controller.observe.owners import ObjectOwners
from tests.observe.objects import job, service

JOB = "shop/train"


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        pytest.param(
            "Forming", "Running", False, id="an attempt of a job that begins is no new version of it"
        ),
        pytest.param("Running", "Running", False, id="nothing happened"),
        pytest.param("Running", "Succeeded", True, id="a job that is done is wanted nothing for any more"),
        pytest.param("Running", "Failed", True, id="nor is one that is given up"),
        pytest.param("Succeeded", "Failed", False, id="an end is an end"),
    ],
)
def test_a_job_has_another_version_once_it_has_ended(before: str, after: str, changed: bool) -> None:
    versions = [
        ObjectOwners({"TrainingJob": {JOB: job(status={"phase": phase})}}).version_of("TrainingJob", JOB)
        for phase in (before, after)
    ]
    assert all(version.startswith("uid-train@2") for version in versions)
    assert (versions[0] != versions[1]) is changed


def test_an_object_that_nobody_follows_has_no_version_and_is_its_own() -> None:
    owners = ObjectOwners({"ModelService": {"shop/chat": service()}})
    assert owners.version_of("ModelService", "shop/other") == ""
    assert owners.version_of("Secret", "shop/token") == ""
    assert owners.owner_of("Secret", "shop/token") == ("Secret", "shop/token")
    assert owners.owner_of("ModelService", "shop/chat") == ("ModelService", "shop/chat")
