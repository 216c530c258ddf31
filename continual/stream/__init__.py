"""The stream: how rows and evaluation tasks enter a workspace.

`ingest` lists the steps a row goes through: readers -> stage (check, hash) -> split (duplicates, leakage, hold-out) ->
`.continual/data`. `tasks` does the same for evaluation tasks.
"""

from continual.stream.ingest import ingest
from continual.stream.readers import Dialect
from continual.stream.report import IngestReport
from continual.stream.schema import Columns
from continual.stream.tasks import TaskReport, import_task

__all__ = ["Columns", "Dialect", "IngestReport", "TaskReport", "import_task", "ingest"]
