"""The response to each POST: a job object with the members that the API documents, and a new id each time.

A response is stored as the text before the id and the text after it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

_USER = "5e0c4f9b-2d86-4a17-b3f1-8c7a60d9e245"
_AT = "2026-01-15T09:00:00.000000Z"
_ID = "\0"


@dataclass(frozen=True, slots=True)
class ResponseTemplate:
    """An ASCII body in two parts, around the id. `padding` is the part of `after` that makes the body large."""

    before: str
    after: str
    padding: str = ""

    @property
    def size(self) -> int:
        """The size of a body in bytes, with an id of 32 characters."""
        return len(self.before) + 32 + len(self.after)


def job_response(size: int = 0) -> ResponseTemplate:
    """A job that has just been accepted, as the API returns it; padded to `size` bytes."""
    job = {
        "created_by": _USER,
        "workflow_id": "9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713",
        "created_at": _AT,
        "updated_at": _AT,
        "exec_created_at": _AT,
        "exec_updated_at": _AT,
        "estimated_duration": 600,
        "progress": "0",
        "status": "accepted",
        "id": _ID,
        "cost": 12,
        "tasks": [{"name": "Analyze", "status": "accepted", "progress": 0, "info_logs": ""}],
        "val_errors": [],
        "spec": [],
    }
    text = json.dumps(job, separators=(",", ":"))
    before, after = text.split(json.dumps(_ID)[1:-1])
    logs = "A" * max(0, size - len(before) - len(after) - 32)  # base64, as in the API
    return ResponseTemplate(before, after.replace('"info_logs":""', f'"info_logs":"{logs}"'), logs)
