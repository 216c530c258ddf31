"""What a caller asks to forget: stated once, validated once."""

from __future__ import annotations

from pathlib import Path

from continual.config import Options
from continual.errors import InputError


class Request(Options):
    """The options of one call. At most one of `domain`, `rows` and `query`; without any, `rebuild` is needed.

    Attributes:
        domain: A domain to forget, with all its rows and tasks.
        rows: A file of rows to forget, in any format that `ingest` reads.
        query: The text of a query; all rows with this query are forgotten.
        rebuild: Make the current version again without the forgotten rows, and remove the models that learned them.
        dry_run: Only report what would be removed.
    """

    call = "forget"

    domain: str | None = None
    rows: Path | None = None
    query: str | None = None
    rebuild: bool = False
    dry_run: bool = False

    @property
    def selects(self) -> bool:
        """Whether rows are named."""
        return (self.domain, self.rows, self.query) != (None, None, None)

    def check(self) -> None:
        """Check that the options say what to forget.

        Raises:
            InputError: Nothing, or more than one thing, is named.
        """
        named = [name for name in ("domain", "rows", "query") if getattr(self, name) is not None]
        if len(named) > 1:
            raise InputError(f"--{named[0]} and --{named[1]} exclude each other. Run the command once for each.")
        if not named and not self.rebuild:
            raise InputError(
                "Say what to forget: --domain NAME, --rows FILE or --query TEXT. Or use --rebuild alone, to make the "
                "current version again without rows that were forgotten before."
            )
        if not named and self.dry_run:
            raise InputError("--dry-run shows what --domain, --rows or --query would remove. Name one of them.")
