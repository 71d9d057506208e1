"""What the sandbox sells: its projects and workflows, and how a manifest's own pairs join them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

# What an admitted workflow costs and takes: nothing is known of it but its id.
_ADMITTED_COST = 10
_ADMITTED_DURATION = 5


@dataclass(frozen=True, slots=True)
class Project:
    """A project. `slug` is what the API calls its name, `title` is for people."""

    id: str
    slug: str
    title: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow, and the projects that it may be run in. `cost` is in tokens, `duration` in seconds.

    Where it `fails`, each of its jobs does.
    """

    id: str
    name: str
    description: str
    cost: int
    duration: int
    project_ids: tuple[str, ...]
    fails: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """Projects and workflows by id, in the order in which they are listed."""

    projects: Mapping[str, Project] = field(default_factory=dict)
    workflows: Mapping[str, Workflow] = field(default_factory=dict)

    def add_pairs(self, pairs: Iterable[tuple[str, str]]) -> Catalog:
        """A catalogue in which each (workflow id, project id) of `pairs` can be run; what is known stays as it is."""
        projects, workflows = dict(self.projects), dict(self.workflows)
        for workflow_id, project_id in pairs:
            projects.setdefault(project_id, Project(project_id, project_id, f"Project {project_id}"))
            workflow = workflows.get(workflow_id) or _admitted(workflow_id)
            workflows[workflow_id] = _in_project(workflow, project_id)
        return Catalog(MappingProxyType(projects), MappingProxyType(workflows))


def of(projects: Iterable[Project], workflows: Iterable[Workflow]) -> Catalog:
    """A catalogue of these projects and workflows."""
    return Catalog(
        MappingProxyType({project.id: project for project in projects}),
        MappingProxyType({workflow.id: workflow for workflow in workflows}),
    )


def _admitted(workflow_id: str) -> Workflow:
    return Workflow(
        id=workflow_id,
        name=f"Workflow {workflow_id}",
        description="A workflow of a manifest under rehearsal.",
        cost=_ADMITTED_COST,
        duration=_ADMITTED_DURATION,
        project_ids=(),
    )


def _in_project(workflow: Workflow, project_id: str) -> Workflow:
    if project_id in workflow.project_ids:
        return workflow
    return replace(workflow, project_ids=(*workflow.project_ids, project_id))


_AGRI = Project("1c6d7a52-0f3e-4b8a-9d21-5e7f30a4c611", "agri-watch", "Agri Watch")
_COAST = Project("0d9eb3f8-52c1-47a6-8e74-b1f6029ad35c", "coast-line", "Coast Line")

# Costs differ, so that a sum shows what it is a sum of; durations are short, so that a person sees a job end, and no
# two workflows' jobs end after the same time (the one that fails does so before its time is up).
EXAMPLE = of(
    projects=(_AGRI, _COAST),
    workflows=(
        Workflow(
            id="9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713",
            name="NDVI",
            description="Vegetation index over the project's fields.",
            cost=12,
            duration=3,
            project_ids=(_AGRI.id,),
        ),
        Workflow(
            id="77b0e8d4-13a9-4f62-b5c7-90d16ea42f58",
            name="Crop stress",
            description="Early stress of crops from red-edge bands.",
            cost=30,
            duration=6,
            project_ids=(_AGRI.id,),
        ),
        Workflow(
            id="4ad91f07-6c2e-4e8b-a3d0-7f15b8c6e92a",
            name="Soil moisture",
            description="Moisture of the upper soil layer.",
            cost=25,
            duration=7,
            project_ids=(_AGRI.id,),
        ),
        Workflow(
            id="b94e6d20-3c7f-4a15-92d8-f06a1e5b7c38",
            name="Cloudy scene",
            description="Clouds hide the fields: each of its jobs fails half-way, to rehearse that.",
            cost=19,
            duration=8,
            project_ids=(_AGRI.id,),
            fails=True,
        ),
        Workflow(
            id="c3185ea6-f94d-4702-bd6b-3e80a7f2415d",
            name="Water quality",
            description="Turbidity and chlorophyll of coastal waters.",
            cost=40,
            duration=4,
            project_ids=(_COAST.id,),
        ),
        Workflow(
            id="e60f72b9-8d14-45c3-9fa7-d25b1c3e8064",
            name="Algal bloom",
            description="Extent of algal blooms.",
            cost=35,
            duration=5,
            project_ids=(_COAST.id,),
        ),
        Workflow(
            id="2b7c90d3-a5e8-4916-87f4-6d0ae1b3c95f",
            name="Coastline change",
            description="Movement of the coastline between two dates.",
            cost=80,
            duration=8,
            project_ids=(_COAST.id,),
        ),
    ),
)
