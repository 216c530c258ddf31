"""The options of a mining, and the function that mines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from continual.config import Config, Options
from continual.errors import InputError, NothingToDoError
from continual.pairs.mine import Mined, mine_domain
from continual.pairs.passages import Corpus
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, Batch, Registry
from continual.storage.locks import UPDATE_LOCK
from continual.versions.build import kept

_logger = logging.getLogger(__name__)


class MineRequest(Options):
    """The options of `Workspace.mine`.

    Attributes:
        domains: Domains whose rows get negatives; None: all that can have any.
        version: Id or alias of the version that finds them; None: the current one.
        corpora: Where to find passages beside the domain's own: names of other domains, or files.
        negatives: Most negatives per row: `mine.negatives`.
        show: Number of examples per domain to return.
        settings: Settings of [mine] that replace those of `continual.toml`, such as `{"mine": {"range_min": 5}}`.
    """

    call = "mine"
    takes = {  # noqa: RUF012  pydantic reads the annotation of the base class
        "negatives": "--negatives takes a whole number from 1 to 100",
        "show": "--show takes a whole number of 0 or more",
    }

    domains: list[str] | None = None
    version: str | None = None
    corpora: list[str] | None = None
    negatives: Annotated[int, Field(ge=1, le=100)] | None = None
    show: Annotated[int, Field(ge=0)] = 0
    settings: dict[str, dict[str, Any]] | None = None

    def resolve(self, config: Config) -> Config:
        """Return the settings with those of the call."""
        return config.change(self.settings or {}, only="mine").replace("mine", negatives=self.negatives)


def mine(registry: Registry, config: Config, request: MineRequest, progress: Progress = SILENT) -> Iterator[Mined]:
    """Mine negatives for the rows of domains; yield the result of each as soon as it is written.

    Raises:
        NotFoundError: A domain or version does not exist.
        InputError: A domain takes no mined negatives, a corpus is no domain and no file, or an option is wrong.
        NothingToDoError: There is no domain with rows to mine for.
        WorkspaceBusy: An update is running.
    """
    config = request.resolve(config)
    domains = _domains(registry, request.domains)
    corpora = [_corpus(registry, name) for name in request.corpora or ()]
    chosen = request.version or CURRENT
    found = 0
    for name, batches in domains.items():
        with registry.lock(UPDATE_LOCK, "mine"), kept(registry, chosen, progress=progress) as (model,):
            if (run := registry.interrupted()) is not None:
                raise InputError(
                    f"The update to {run.id} was interrupted, and it resumes only with the negatives it began with. "
                    "Continue it with `continual update --resume`, or discard it with `continual update --restart`."
                )
            version = registry.version(chosen).id
            options: dict[str, Any] = {"corpora": corpora, "show": request.show, "progress": progress}
            try:
                mined = mine_domain(registry, config, model, version, batches, **options)
            except NothingToDoError as error:
                if len(domains) == 1:
                    raise
                _logger.warning("No negatives are mined for %s: %s", name, error)
                continue
        found += 1
        yield mined
    if not found:
        raise NothingToDoError("No domain has rows that can be trained on, so there is nothing to mine for.")


def mine_batches(
    registry: Registry, config: Config, version: str, names: Iterable[str], progress: Progress = SILENT
) -> list[Mined]:
    """Mine negatives for the rows of some batches, in the passages of their whole domains.

    Domains without rows that mined negatives are for are left out. The caller holds the update lock.

    Args:
        version: Id of the version that finds them.
        names: Ids of the batches.
    """
    wanted, found = set(names), []
    with kept(registry, version, progress=progress) as (model,):
        for domain, batches in _by_domain(registry).items():
            targets = [batch for batch in batches if batch.id in wanted]
            if not targets:
                continue
            try:
                mined = mine_domain(registry, config, model, version, batches, targets=targets, progress=progress)
            except NothingToDoError:
                continue
            if mined.suspect:
                _logger.warning(
                    "%s: per query, %.1f other passages score about as high as the positive, so some negatives "
                    "may be right answers. Look at them with `continual mine %s --show 10`.",
                    domain,
                    mined.near,
                    domain,
                )
            found.append(mined)
    return found


def _domains(registry: Registry, names: Sequence[str] | None) -> dict[str, list[Batch]]:
    """Return the batches of each domain to mine for."""
    chosen = registry.domain_names(list(names) if names else None)
    known = _by_domain(registry)
    unfit = [name for name in chosen if name not in known]
    if names and unfit:
        raise InputError(
            f"{unfit[0]} takes no mined negatives: it has no rows, its pairs are graded, or its rows use only "
            "negatives that are given with them. Name other domains."
        )
    found = {name: known[name] for name in chosen if name in known}
    if not found:
        raise NothingToDoError(
            "No domain has rows that mined negatives are for. Add pairs of queries and passages with `continual "
            "ingest FILE`."
        )
    if unfit:
        _logger.warning("No negatives are mined for %s, whose rows take none.", ", ".join(unfit))
    return found


def _by_domain(registry: Registry) -> dict[str, list[Batch]]:
    """Return the batches with rows of each domain whose rows take mined negatives."""
    fit = {domain.name for domain in registry.domains() if domain.in_batch and not domain.graded}
    found: dict[str, list[Batch]] = {}
    for batch in registry.batches():
        if batch.domain in fit and batch.kept:
            found.setdefault(batch.domain, []).append(batch)
    return found


def _corpus(registry: Registry, name: str) -> Corpus:
    """Return the passages that a name stands for: those of a domain, or of a file."""
    if name in {domain.name for domain in registry.domains()}:
        return [batch for batch in registry.batches() if batch.domain == name and batch.kept]
    if not name.startswith("hf:") and not Path(name).exists():
        raise InputError(f"--corpus {name} is neither a domain of this workspace nor a file. Name one of them.")
    return name
