"""Clusters of domains: the small TOML file that `analyze conflicts` writes, a person may edit, and recipes read."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual.errors import ConfigError, NotFoundError, did_you_mean

FILE = "conflicts.toml"
"""Where the clusters are by default: beside `continual.toml`."""

_TABLE = "clusters"
_SEAL = "# Unedited while the lines below have the sha256 "


def read_clusters(path: Path, domains: Collection[str]) -> dict[str, list[str]]:
    """Return the domains of each cluster by its name, both in the order of the file.

    The file has one table, `[clusters]`, with a line such as `papers = ["arxiv", "pubmed"]` for each cluster.

    Args:
        path: The file.
        domains: Those that are to be clustered; each must be in one cluster, and no other domain in any.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is no TOML of this form, or its clusters are no partition of the domains; every fault is named.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no file {path}. `continual analyze conflicts` makes one; or write a table [{_TABLE}] with a "
            'line such as papers = ["arxiv", "pubmed"] for each cluster.'
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend it by hand.") from None
    clusters = data.get(_TABLE)
    if not isinstance(clusters, dict) or not clusters:
        raise ConfigError(f'{path} has no clusters: it needs a table [{_TABLE}] with lines such as a = ["x", "y"].')
    faults = [f"{name} is unknown; the file has one table, [{_TABLE}]" for name in data if name != _TABLE]
    faults += _faults(clusters, domains)
    if faults:
        raise ConfigError(f"{path} cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))
    return clusters


def _faults(clusters: Mapping[str, Any], domains: Collection[str]) -> list[str]:
    """Return what keeps clusters from being a partition of the domains, a sentence each."""
    faults: list[str] = []
    owner: dict[str, str] = {}
    for name, members in clusters.items():
        if not isinstance(members, list) or not members or not all(isinstance(each, str) for each in members):
            faults.append(f"cluster {name} is no list of names of domains, with one at least")
            continue
        for domain in members:
            if domain not in domains:
                faults.append(f"cluster {name}: there is no domain {domain!r}.{did_you_mean(domain, domains)}")
            elif domain in owner:
                faults.append(f"{domain} is twice in it: in cluster {owner[domain]} and in cluster {name}")
            owner.setdefault(domain, name)
    lost = [domain for domain in domains if domain not in owner]
    if lost:
        faults.append(
            f"in no cluster: {', '.join(lost)}. Add each to one, or run `continual analyze conflicts` once more"
        )
    return faults


def render_clusters(clusters: Mapping[str, Sequence[str]], about: str) -> str:
    """Return the file that `read_clusters` reads.

    Args:
        clusters: Domains by the name of their cluster.
        about: A line that says where they come from.
    """
    lines = [f"[{_TABLE}]"]
    # A JSON string is a TOML string too.
    lines += [
        f"{_quoted(name)} = {json.dumps(list(members), ensure_ascii=False)}" for name, members in clusters.items()
    ]
    body = "\n".join(lines) + "\n"
    head = [
        f"# {about}",
        "# Change it as you like: every domain is in one cluster. An edited file is never overwritten.",
        f"{_SEAL}{_digest(body)}.",
    ]
    return "\n".join(head) + "\n" + body


def is_edited(path: Path) -> bool:
    """Return whether a file is there that `render_clusters` has not made as it is."""
    if not path.exists():
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True
    _, found, rest = text.partition(_SEAL)
    seal, _, body = rest.partition("\n")
    return not found or seal != f"{_digest(body)}."


def _quoted(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name, ensure_ascii=False)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
