"""Whether a template is there. c7n_mailer only logs that it is not, and goes on without a text."""

from pathlib import Path

from .errors import Permanent


def require(config: dict, name: str) -> None:
    """Permanent when no folder of `templates_folders` has the template."""
    if not any((Path(folder) / f"{name}.j2").is_file() for folder in config["templates_folders"]):
        raise Permanent(f"there is no template {name!r}")


def require_text(name: str, text: str | None) -> None:
    """Permanent when a template rendered to nothing, which is no message to anybody."""
    if not (text or "").strip():
        raise Permanent(f"the template {name!r} renders to nothing")
