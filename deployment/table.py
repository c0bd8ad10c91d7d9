"""One table on a terminal; the same as lines of text where nobody looks at it."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployment.errors import printable

# what is piped or logged is not cut at 80 columns
WIDTH = 200


def show(title, columns, rows):
    """Print rows of text; what is in them may come from AWS and is not read as markup. Without
    `columns` they have no heads and no lines."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    # its own title would be folded at the width of the table
    console.print(escape(printable(title)), style="italic", highlight=False, soft_wrap=True)
    table = Table(show_edge=False) if columns else Table.grid(padding=(0, 2))
    for column in columns or rows[0]:
        table.add_column(column if columns else "", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)
