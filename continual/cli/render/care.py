"""What doctor prints."""

from __future__ import annotations

from continual.care.backup import Backup, Removed
from continual.care.findings import Diagnosis
from continual.care.restore import Restored
from continual.cli.render.console import say


def print_diagnosis(found: Diagnosis) -> None:
    """Print what was mended, then each finding with what depends on it and what to do."""
    for text in found.fixed:
        say(text)
    for finding in found.findings:
        say(f"{finding.severity}: {finding.where} {finding.what.rstrip('.')}.")
        say(f"    Affects: {finding.affects}.")
        say(f"    {finding.cure}")
    how = "read in full" if found.full else "checked"
    say(f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB, were {how}. {_verdict(found)}")


def _verdict(found: Diagnosis) -> str:
    counts = {name: sum(finding.severity == name for finding in found.findings) for name in ("error", "warning")}
    words = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
    if not words:
        return "Nothing is wrong."
    mendable = any(finding.mend for finding in found.findings) and not found.fixed
    return f"{' and '.join(words)}." + (" `continual doctor --fix` mends some of them." if mendable else "")


def print_backup(made: Backup) -> None:
    """Print what was copied, and what was left out."""
    say(
        f"Backed up {made.files:,} files, {_megabytes(made.bytes)}, to {made.store} as {made.name}; "
        f"{made.new_files:,} files, {_megabytes(made.new_bytes)}, were new."
    )
    for what in made.left_out:
        say(f"Left out: {what}.")
    if made.replaced:
        say(f"Replaced: {made.replaced:,} damaged files of the backup folder. Older backups use them too.")
    if made.verified:
        say("Every file was read back and has its digest.")
    elif made.new_files < made.files:
        say("Files that were there were not read again; --verify reads them, and replaces what is damaged.")


def print_removed(removed: Removed) -> None:
    """Print what was removed."""
    say(
        f"Removed the backup {removed.name} from {removed.store}, and {removed.files:,} files, "
        f"{_megabytes(removed.bytes)}, that no other backup there needs."
    )


def print_restored(made: Restored) -> None:
    """Print where the workspace is."""
    say(f"Restored the backup {made.name}: {made.files:,} files, {_megabytes(made.bytes)}, in {made.directory}.")
    if made.trust_reset:
        say(
            "Set trust_remote_code to false in continual.toml: a backup may come from a stranger. If you trust the "
            "code of its models, set it to true again."
        )
    say(f"Check it with `continual doctor --full -w {made.directory}`.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
