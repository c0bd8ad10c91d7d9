"""One table on a terminal; the same as lines of text where nobody looks at it."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployment.errors import printable

# what is piped or logged is not cut at 80 columns
WIDTH = 200


def show(title, columns, rows):
    """Print rows of text; what is in them may come from AWS and is not read as markup."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(title=escape(printable(title)), title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)
