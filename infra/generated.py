"""Pages of docs/ that are generated: written, or compared with what would be written."""

from pathlib import Path

import click

option = click.option(
    "--check", is_flag=True, help="Write nothing; end with 1 where the page is stale."
)


def write(page: Path, made: str, target: str, check: bool) -> None:
    """Write a page, or with `check` end with 1 where it is not as made. target: of make."""
    if not check:
        page.write_text(made)
    elif not page.exists() or page.read_text() != made:
        click.echo(f"docs/{page.name} is stale: make {target}", err=True)
        raise SystemExit(1)
