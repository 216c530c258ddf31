"""The TOML file of domain clusters: `analyze conflicts` writes it, users can edit it, and recipes read it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual.errors import ConfigError, NotFoundError, did_you_mean

FILE = "conflicts.toml"
"""Default name of the file, beside `continual.toml`."""

_TABLE = "clusters"
_SEAL = "# Unedited while the lines below have the sha256 "


def read_clusters(path: Path, domains: Collection[str]) -> dict[str, list[str]]:
    """Return the domains of each cluster, by cluster name, both in the order of the file.

    The file has one table, `[clusters]`, with a line such as `papers = ["arxiv", "pubmed"]` for each cluster.

    Args:
        domains: The domains to cluster; each must be in exactly one cluster, and no cluster may name other domains.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: The file is not TOML of this form, or its clusters are not a partition of the domains; the message
            lists all errors.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # reading a pipe may never end
        raise ConfigError(f"{path} is a pipe or a device. Name a file with --clusters.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no file {path}. Create it with `continual analyze conflicts`, or write a table [{_TABLE}] with "
            'a line such as papers = ["arxiv", "pubmed"] for each cluster.'
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}. Name a readable file with --clusters."
        ) from None
    except (ValueError, RecursionError) as error:  # as in `continual.config.load_config`
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path} is not valid TOML: {reason}. Fix the file by hand.") from None
    clusters = data.get(_TABLE)
    if not isinstance(clusters, dict) or not clusters:
        raise ConfigError(
            f'{path} has no clusters. Add a table [{_TABLE}] with lines such as papers = ["arxiv", "pubmed"].'
        )
    errors = [f"{name} is unknown: the only table is [{_TABLE}]" for name in data if name != _TABLE]
    errors += _errors(clusters, domains)
    if errors:
        raise ConfigError(f"{path} is not valid. Fix it by hand:\n" + "\n".join(f"  {line}" for line in errors))
    return clusters


def _errors(clusters: Mapping[str, Any], domains: Collection[str]) -> list[str]:
    """Return a sentence for each reason why the clusters are not a partition of the domains."""
    errors: list[str] = []
    cluster_of: dict[str, str] = {}
    for name, members in clusters.items():
        if not isinstance(members, list) or not members or not all(isinstance(member, str) for member in members):
            errors.append(f"cluster {name} must be a list of at least one domain name")
            continue
        for domain in members:
            if domain not in domains:
                errors.append(f"cluster {name}: there is no domain {domain!r}.{did_you_mean(domain, domains)}")
            elif domain in cluster_of:
                errors.append(f"{domain} is listed twice: in cluster {cluster_of[domain]} and in cluster {name}")
            cluster_of.setdefault(domain, name)
    missing = [domain for domain in domains if domain not in cluster_of]
    if missing:
        errors.append(
            f"in no cluster: {', '.join(missing)}. Add each to a cluster, or run `continual analyze conflicts` again"
        )
    return errors


def render_clusters(clusters: Mapping[str, Sequence[str]], about: str) -> str:
    """Return the text of a file for `read_clusters`.

    Args:
        clusters: Domains by cluster name.
        about: A line that says where the clusters come from; it becomes the first comment.
    """
    lines = [f"[{_TABLE}]"]
    # JSON strings are valid TOML strings.
    lines += [
        f"{_quoted(name)} = {json.dumps(list(members), ensure_ascii=False)}" for name, members in clusters.items()
    ]
    body = "\n".join(lines) + "\n"
    head = [
        f"# {about}",
        "# Edit it as you like, with every domain in exactly one cluster. An edited file is never overwritten.",
        f"{_SEAL}{_digest(body)}.",
    ]
    return "\n".join(head) + "\n" + body


def is_edited(path: Path) -> bool:
    """Return whether a file exists and differs from what `render_clusters` wrote."""
    if not path.exists():
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True
    _, mark, rest = text.partition(_SEAL)
    seal, _, body = rest.partition("\n")
    return not mark or seal != f"{_digest(body)}."


def _quoted(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name, ensure_ascii=False)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
