"""The stream: how rows and evaluation tasks come into a workspace.

A row goes readers -> stage (check, hash) -> split (duplicates, leakage, hold-out) -> `.continual/data`;
`ingest` is the order of it, `tasks` the same for evaluation tasks. `text` says when two texts are the same.
"""

from continual.stream.ingest import IngestReport, ingest
from continual.stream.schema import Columns
from continual.stream.tasks import TaskReport, import_task

__all__ = ["Columns", "IngestReport", "TaskReport", "import_task", "ingest"]
