"""The sandbox's projects and workflows, and how those of a manifest are added to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Project:
    """A project. `slug` is what the API calls its name, `title` is the display name."""

    id: str
    slug: str
    title: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow, and the projects in which it can run. `cost` is in tokens, `duration` in seconds.

    If it `fails`, all of its jobs do.
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
        """A catalog in which every (workflow id, project id) of `pairs` can run. Known ones do not change."""
        projects, workflows = dict(self.projects), dict(self.workflows)
        for workflow_id, project_id in pairs:
            projects.setdefault(project_id, Project(project_id, project_id, f"Project {project_id}"))
            workflow = workflows.get(workflow_id) or _default_workflow(workflow_id)
            if project_id not in workflow.project_ids:
                workflow = replace(workflow, project_ids=(*workflow.project_ids, project_id))
            workflows[workflow_id] = workflow
        return Catalog(projects, workflows)


def _default_workflow(workflow_id: str) -> Workflow:
    name, description = f"Workflow {workflow_id}", "A workflow of a manifest."
    return Workflow(workflow_id, name, description, cost=10, duration=5, project_ids=())


_AGRI = Project("1c6d7a52-0f3e-4b8a-9d21-5e7f30a4c611", "agri-watch", "Agri Watch")
_COAST = Project("0d9eb3f8-52c1-47a6-8e74-b1f6029ad35c", "coast-line", "Coast Line")
_IN_AGRI = (_AGRI.id,)
_IN_COAST = (_COAST.id,)

# Id, name, description, cost, duration, projects. Costs differ, so that a sum shows what it consists of. Durations are
# short, so that you see jobs finish, and no two workflows' jobs finish after the same time (a failing one fails early).
_WORKFLOWS = (
    Workflow("9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713", "NDVI", "Vegetation index of the fields.", 12, 3, _IN_AGRI),
    Workflow("77b0e8d4-13a9-4f62-b5c7-90d16ea42f58", "Crop stress", "Early stress of crops.", 30, 6, _IN_AGRI),
    Workflow("4ad91f07-6c2e-4e8b-a3d0-7f15b8c6e92a", "Soil moisture", "Moisture of the upper soil.", 25, 7, _IN_AGRI),
    Workflow(
        "b94e6d20-3c7f-4a15-92d8-f06a1e5b7c38", "Cloudy scene", "Every job fails halfway.", 19, 8, _IN_AGRI, fails=True
    ),
    Workflow("c3185ea6-f94d-4702-bd6b-3e80a7f2415d", "Water quality", "Turbidity and chlorophyll.", 40, 4, _IN_COAST),
    Workflow("e60f72b9-8d14-45c3-9fa7-d25b1c3e8064", "Algal bloom", "Extent of algal blooms.", 35, 5, _IN_COAST),
    Workflow("2b7c90d3-a5e8-4916-87f4-6d0ae1b3c95f", "Coastline change", "Movement of the coast.", 80, 8, _IN_COAST),
)
EXAMPLE = Catalog(
    {project.id: project for project in (_AGRI, _COAST)}, {workflow.id: workflow for workflow in _WORKFLOWS}
)
