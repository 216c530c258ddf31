"""The rows that query maps are fitted on: learned rows, as both models encode them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from continual.registry import Batch, Registry, Task
from continual.replay import RowReader, allot

if TYPE_CHECKING:
    from continual.eval.encoder import OnceEncoder
    from continual.index.maps import Texts
    from continual.index.pair import Pair


def fitting_texts(
    pair: Pair, tasks: Sequence[Task], batches: Sequence[Batch], rows: int
) -> tuple[list[str], Texts | None]:
    """Return queries of learned rows, and the rows' vectors under both models.

    The vectors are None if no map can be fitted: there are too few rows, or the model compares by neither cosine nor
    dot product.
    """
    from continual.eval.tasks import local_metadata
    from continual.index.fitting import LEAST
    from continual.index.maps import texts_of

    asked, passages, instructions = fitting_rows(pair.registry, tasks, batches, rows)
    if len(asked) < LEAST or pair.new.compares_by not in ("cosine", "dot"):
        return asked, None
    pair.progress.start("encoding learned texts", None, "texts")
    texts = local_metadata("texts")
    queries = _vectors(pair.new, asked, instructions)
    old, new = (encoder.vectors("document", passages, texts) for encoder in (pair.old, pair.new))
    pair.progress.finish()
    return asked, texts_of(queries, old, new, normalise=pair.new.compares_by == "cosine")


def _vectors(encoder: OnceEncoder, queries: list[str], instructions: list[str | None]) -> Any:
    """Return the vectors of queries, each with its instruction, [queries, dimensions]."""
    import numpy as np

    from continual.eval.tasks import local_metadata

    found: dict[int, Any] = {}
    for number, instruction in enumerate(dict.fromkeys(instructions)):
        places = [place for place, each in enumerate(instructions) if each == instruction]
        name = local_metadata("texts" if instruction is None else f"texts-{number}")
        encoder.instruct(name, instruction)
        found.update(zip(places, encoder.vectors("query", [queries[place] for place in places], name), strict=True))
    return np.stack([found[place] for place in range(len(queries))])


def fitting_rows(
    registry: Registry, tasks: Sequence[Task], batches: Sequence[Batch], rows: int
) -> tuple[list[str], list[str], list[str | None]]:
    """Return queries and passages of learned rows, the same number per domain, and the queries' instructions.

    Queries and relevant documents of tasks are never among them. Rows with other documents of the searched tasks are
    left out too, unless that would drop more than half of a domain's rows: the corpus of a held-out task also holds
    passages that are trained on.
    """
    if not rows or not batches:
        return [], [], []
    with RowReader(registry) as source:
        table = source.draw([], batches, allot("balanced", source.count(batches), 1.0, rows), {}).table
    texts = [table[name].to_pylist() for name in ("domain", "query", "positive")]
    taken = _tested(registry, tasks, {text for column in texts[1:] for text in column})
    domains: dict[str, list[tuple[str, str]]] = {}
    for domain, *pair in zip(*texts, strict=True):
        domains.setdefault(domain, []).append((pair[0], pair[1]))
    pairs, instructions, known_to = [], [], registry.instructions()
    for domain, known in domains.items():
        others = [pair for pair in known if taken.isdisjoint(pair)]
        some = others if 2 * len(others) >= len(known) else known
        pairs += some
        instructions += [known_to.get(domain)] * len(some)
    return [query for query, _ in pairs], [passage for _, passage in pairs], instructions


def _tested(registry: Registry, tasks: Sequence[Task], texts: set[str]) -> set[str]:
    """Return which of some texts occur in local tasks, without making Python objects of all texts of the tasks."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: set[str] = set()
    wanted = pa.array(texts, pa.string())
    for task in (task for task in tasks if task.mteb is None):
        for kind in ("queries", "corpus"):
            with pq.ParquetFile(registry.task_folder(task) / f"{kind}.parquet") as file:
                for batch in file.iter_batches(columns=["text"]):
                    known = pc.is_in(batch["text"], value_set=wanted)
                    found.update(batch["text"].filter(known).to_pylist())
    return found
